"""Orchestration only: DVC stages, Prefect flow, MLflow tracking, command line. No tensor, no formula."""
