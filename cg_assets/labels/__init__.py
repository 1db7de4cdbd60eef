"""Force labels and what is known of them: mapped forces, mean forces, kernels, thermal response."""
