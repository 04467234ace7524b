"""Where results of tasks are kept, so that they need not be made again.

A task with a ``cache_policy`` or ``cache_key_fn`` keeps its results in the memory of
the process; with ``persist_result=True`` they go to a folder in ``ENGINE_HOME``, which
all processes of the machine share.
"""

from engine.results.current import home_store, use_result_store
from engine.results.exceptions import ResultKeyError, UnstorableResultError
from engine.results.files import FileResultStore
from engine.results.store import MemoryResultStore, ResultRecord, ResultStore

__all__ = [
    "FileResultStore",
    "MemoryResultStore",
    "ResultKeyError",
    "ResultRecord",
    "ResultStore",
    "UnstorableResultError",
    "home_store",
    "use_result_store",
]
