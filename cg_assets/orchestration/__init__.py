"""Dagster: definitions, jobs, schedules, sensors, resources and executors."""
