"""The tests there are, by name. A new one is a file here and a row in this table."""

from llavakit.evaluate.task import Task
from llavakit.evaluate.tasks.scenes import SCENES

TASKS: dict[str, Task] = {task.name: task for task in (SCENES,)}

__all__ = ["TASKS"]
