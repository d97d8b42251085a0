"""What restorekit can do: one task per file, from which commands, training and tests are made."""

from restorekit.tasks.burst import TASK as BURST
from restorekit.tasks.deblur import TASK as DEBLUR
from restorekit.tasks.denoise import TASK as DENOISE
from restorekit.tasks.derain import TASK as DERAIN
from restorekit.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (DENOISE, DERAIN, DEBLUR, BURST)}

__all__ = ["TASKS", "Task"]
