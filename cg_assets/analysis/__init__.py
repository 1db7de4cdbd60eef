"""Estimators with error bars, figures of merit and plots."""
