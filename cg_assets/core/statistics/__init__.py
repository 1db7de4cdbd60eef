"""Estimators with error bars that know arrays and no systems."""
