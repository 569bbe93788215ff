"""The servers of one machine: Prefect, its worker, MLflow and the service, kept running by a small supervisor.

Why one of our own: what is needed (start in order, wait for an answer over HTTP, restart with back-off, end whole
process groups, put lost flow runs back) is little, and general supervisors have no health checks. On a machine
that must also survive its own restart, systemd starts the supervisor (deploy/systemd).
"""
