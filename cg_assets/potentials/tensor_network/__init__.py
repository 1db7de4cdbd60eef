"""W(R, T) of HIP-NN-TS, a message-passing network with tensor sensitivities."""
