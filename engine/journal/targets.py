"""Names by which flows, tasks and hooks are found again in another process.

``module:qualname`` for what an import finds, with the file's path in the place of the
module for what was defined in a script. A hook that has no such name (a partial, a
lambda, a bound method) is found through the flow or task it belongs to:
``module:flow#on_failure[1]``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from engine.definition import Definition
    from engine.hooks import Hook


SCRIPT: Final = "engine_script_"
"""What the names of modules begin with that were made of scripts."""


class UnresolvableTarget(LookupError):
    """A target leads nowhere, or to something else than was recorded."""


def target_of(thing: Any) -> str:
    """Return the name of a function or of a decorated one; it may lead nowhere."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    qualname = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    if module == "__main__":
        module = main_file() or module
    elif module.startswith(SCRIPT):
        module = getattr(sys.modules.get(module), "__file__", None) or module
    return f"{module}:{qualname}"


def main_file() -> str | None:
    """Return the path of the script that this process runs; None if there is none."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if path is None else os.path.abspath(path)


def hook_target(definition: Definition[..., Any] | None, kind: str, hook: Hook) -> str:
    """Return the name of one of a definition's hooks, by its own name if it has one."""
    target = target_of(hook.fn)
    if definition is None or leads_to(target, hook.fn):
        return target
    hooks = definition.hooks.by_kind.get(kind, ())
    if hook in hooks:
        through = target_of(definition)
        if same_hook(through, kind, hooks.index(hook), hook):
            return f"{through}#{kind}[{hooks.index(hook)}]"
    return target


def leads_to(target: str, thing: Any) -> bool:
    """Whether a name means *thing* in this very process, without importing anything."""
    module, _, qualname = target.rpartition(":")
    if module == main_file():
        module = "__main__"
    elif module.endswith(".py"):
        module = script_name(module)
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is not None and found is thing


def same_hook(through: str, kind: str, index: int, hook: Hook) -> bool:
    """Whether a definition's name leads to one that has *hook* at its place."""
    try:
        hooks = find(through).hooks.by_kind[kind]
    except (UnresolvableTarget, AttributeError, KeyError):
        return False
    return index < len(hooks) and hooks[index] is hook


def find(target: str) -> Any:
    """Return what a target names, importing its module.

    Raises:
        UnresolvableTarget: There is nothing of that name, or it is no name.
    """
    name, _, qualname = target.rpartition(":")
    if not name or not qualname:
        text = f"the target must look like MODULE:FLOW, got {target!r}"
        raise UnresolvableTarget(text)
    found: Any = load(name)
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            text = f"{name} has no {qualname}"
            raise UnresolvableTarget(text) from None
    return found


def find_hook(target: str, name: str) -> Any:
    """Return the function of the hook that a target names.

    Args:
        target: From `hook_target`.
        name: What the hook was called, which it must still be.

    Raises:
        UnresolvableTarget: There is no such hook any more.
    """
    through, separator, place = target.partition("#")
    if not separator:
        fn = find(target)
        if not callable(fn):
            raise UnresolvableTarget(f"{target} is not callable")
        return fn
    kind, _, index = place.rstrip("]").partition("[")
    hooks = getattr(getattr(find(through), "hooks", None), "by_kind", {}).get(kind, ())
    if int(index) >= len(hooks) or hooks[int(index)].name != name:
        raise UnresolvableTarget(
            f"{through} has no {kind} hook {name!r} there any more"
        )
    return hooks[int(index)].fn


def load(name: str) -> ModuleType:
    """Import a module by its name, or a script by its path.

    Raises:
        UnresolvableTarget: It cannot be imported, for whatever reason.
    """
    try:
        if name == main_file():
            return sys.modules["__main__"]
        if name.endswith(".py"):
            return load_file(name)
        return importlib.import_module(name)
    except Exception as error:
        # The user's module may raise anything at all.
        text = f"{name} cannot be imported: {type(error).__name__}: {error}"
        raise UnresolvableTarget(text) from error


def script_name(path: str) -> str:
    """Return the module name that stands for a script."""
    return SCRIPT + hashlib.sha256(path.encode()).hexdigest()[:12]


def load_file(path: str) -> ModuleType:
    """Import a script by its path, under a name that is not ``__main__``."""
    name = script_name(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be made of {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
