"""Force labels and their errors: mapped forces, mean forces, kernels, thermal response."""
