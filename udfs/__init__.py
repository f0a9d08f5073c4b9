"""The Spark side of the work: functions that run on executors."""
