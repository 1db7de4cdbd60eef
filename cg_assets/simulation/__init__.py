"""CG molecular dynamics with a trained potential."""
