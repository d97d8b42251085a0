"""What restorekit can do: one task per file, from which commands, training and tests are made."""

from restorekit.tasks.denoise import TASK as DENOISE
from restorekit.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (DENOISE,)}

__all__ = ["TASKS", "Task"]
