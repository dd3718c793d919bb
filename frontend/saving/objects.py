"""Layers, losses, optimizers and their like as data, in Keras's form of module, class name and config; and back.

No name is imported: it is looked up among Gradloom's own classes and functions, those that were registered, and those
of the caller's `custom_objects`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import EllipsisType, ModuleType
from typing import Any, TypeVar

import numpy as np

from gradloom.compiler.errors import GradloomError
from gradloom.compiler.types import BF16, DType
from gradloom.constructors import Constructed
from gradloom.layers.lambda_layer import Lambda
from gradloom.layers.layer import Layer
from gradloom.mixed_precision import DTypePolicy
from gradloom.saving.names import layer_names

T = TypeVar("T")

FUNCTION, ARRAY, TUPLE, SLICE, ELLIPSIS, TENSOR, VARIABLE = (
    "function",
    "__numpy__",
    "__tuple__",
    "__slice__",
    "__ellipsis__",
    "__tensor__",
    "__variable__",
)
"""Class names of what has no class of its own in a file."""


class ConfigError(GradloomError, ValueError):
    """Data that should describe an object describes none; or an object cannot be described."""


@dataclass(frozen=True)
class TensorPlace:
    """A tensor of a model: an output of a call, both by number; the model's inputs are those of call −1."""

    call: int
    output: int


@dataclass(frozen=True)
class VariablePlace:
    """A variable that calls of a model take themselves, by number."""

    number: int


@dataclass(frozen=True)
class _File:
    """What is described together.

    paths: the names that layers have within the outermost one, which do not depend on what else the process made.
    functions: those of one's own by name, so far.
    """

    paths: Mapping[Layer, str]
    functions: dict[str, Callable[..., Any]]


_file: ContextVar[_File | None] = ContextVar("file", default=None)
_custom: ContextVar[dict[str, Any]] = ContextVar("custom_objects", default={})  # noqa: B039 (never changed in place)
_registered: dict[str, Any] = {}


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    """Let one's own classes and functions be found by name inside: `with custom_object_scope({"Twice": Twice})`."""
    if not isinstance(custom_objects, Mapping | None):
        raise TypeError(
            f"Expected custom_objects as a dict of classes and functions by name. Received: {custom_objects!r}"
        )
    token = _custom.set({**_custom.get(), **(custom_objects or {})})
    try:
        yield
    finally:
        _custom.reset(token)


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Return a decorator that makes a class or a function known to files as `package>name`, by default its own."""

    def register(thing: T) -> T:
        if isinstance(thing, type) and not hasattr(thing, "get_config"):
            raise ConfigError(f"Expected a class with get_config. Received: {thing!r}")
        _registered[f"{package}>{name or getattr(thing, '__name__', thing)}"] = thing
        return thing

    return register


def get_custom_objects() -> dict[str, Any]:
    """The classes and functions that were registered, by name; what is put into it is known from then on."""
    return _registered


def get_registered_name(thing: Any) -> str:
    """The name under which a class or function was registered, else its own."""
    names = [name for name, registered in _registered.items() if registered is thing]
    return names[0] if names else str(thing.__name__)


def serialize_keras_object(thing: Any) -> Any:
    """Return an object as data for JSON, which `deserialize_keras_object` makes an equal object of.

    Functions are told by name. Raises ConfigError, and says where, for what has no such form.
    """
    return _data(thing, "")


def _data(thing: Any, owner: str) -> Any:
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, np.generic) and thing.dtype.kind in "biuf":
        return thing.item()
    if isinstance(thing, Mapping):
        return _mapping(thing, owner)
    if isinstance(thing, (DType, DTypePolicy)):
        return thing.numpy_name if isinstance(thing, DType) else thing.name
    if isinstance(thing, list):
        return [_data(item, owner) for item in thing]
    special: Callable[[Any, str], Any] | None = next(
        (_SPECIAL[kind] for kind in _SPECIAL if isinstance(thing, kind)), None
    )
    if special is not None:
        return special(thing, owner)
    if isinstance(thing, type) and issubclass(thing, np.generic):
        return np.dtype(thing).name
    if not isinstance(thing, type) and hasattr(thing, "get_config"):
        return described(thing)
    if inspect.isroutine(thing):
        return _function(thing, owner)
    where = f"{owner!r}: " if owner else ""
    raise ConfigError(
        f"{where}Expected numbers, strings, arrays, functions, and objects with get_config, in lists, tuples and "
        f"dicts. Received: {thing!r}"
    )


def _mapping(thing: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    wrong = [key for key in thing if not isinstance(key, str)]
    if wrong:
        raise ConfigError(f"{owner!r}: Expected strings as a dict's keys. Received: {wrong[0]!r}")
    name = thing.get("name")
    return {key: _data(value, name if isinstance(name, str) else owner) for key, value in thing.items()}


def _tagged(tag: str, config: Any) -> dict[str, Any]:
    return {"class_name": tag, "config": config}


_SPECIAL: dict[type, Callable[[Any, str], Any]] = {
    np.ndarray: lambda array, _: _tagged(ARRAY, {"value": array.tolist(), "dtype": array.dtype.name}),
    np.dtype: lambda dtype, _: dtype.name,
    tuple: lambda items, owner: _tagged(TUPLE, [_data(item, owner) for item in items]),
    slice: lambda part, owner: _tagged(SLICE, [_data(x, owner) for x in (part.start, part.stop, part.step)]),
    EllipsisType: lambda *_: _tagged(ELLIPSIS, None),
    TensorPlace: lambda place, _: _tagged(TENSOR, [place.call, place.output]),
    VariablePlace: lambda place, _: _tagged(VARIABLE, place.number),
}


def described(thing: Any) -> dict[str, Any]:
    """Return an object's class and its config as data."""
    made = type(thing)
    with one_file(thing) as file:
        config = thing.get_config()
        if isinstance(thing, Lambda) and _is_lambda(thing.function):
            # Whoever loads the file gives the function under this name: it has none, but the layer has.
            config["function"] = {"module": None, "class_name": FUNCTION, "config": file.paths.get(thing) or thing.name}
        config = _data(config, str(getattr(thing, "name", "")))
    module, name = _names_of_own().get(made, (None, get_registered_name(made)))
    data = {"module": module, "class_name": name, "config": config}
    if isinstance(thing, Layer) and not thing._trainable:
        data["trainable"] = False
    return data | ({"name": thing.name} if isinstance(thing, Layer) else {})


@contextmanager
def one_file(thing: Any) -> Iterator[_File]:
    """Describe inside what stands in one file, or in one config, with `thing`: names mean one function each."""
    file = _file.get()
    if file is None:
        layers = layer_names(thing) if isinstance(thing, Layer) else {}
        file = _File({layer: path.rstrip("/") for path, layer in layers.items()}, {})
    token = _file.set(file)
    try:
        yield file
    finally:
        _file.reset(token)


def _is_lambda(function: Any) -> bool:
    return getattr(function, "__name__", "") == "<lambda>" and get_registered_name(function) == "<lambda>"


def _function(function: Callable[..., Any], owner: str) -> dict[str, Any]:
    module, name = _names_of_own().get(function, (None, get_registered_name(function)))
    file = _file.get()
    others = {} if file is None or module is not None else file.functions
    if _is_lambda(function) or others.setdefault(name, function) != function:
        code = getattr(function, "__code__", None)
        line = "" if code is None else f"  [{code.co_filename}:{code.co_firstlineno}]"
        where = f"{owner!r}: " if owner else ""
        raise ConfigError(
            f"{where}Expected functions with names of their own, for a file tells them by these: say def name(…) "
            f"instead of lambda. Received: {'a lambda' if _is_lambda(function) else f'another {name!r}'}{line}"
        )
    return {"module": module, "class_name": FUNCTION, "config": name}


def deserialize_keras_object(data: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Return what `serialize_keras_object` described; objects among the data are left as they are.

    custom_objects: classes and functions of one's own by their names. Raises ConfigError for names that are not known,
    and for data that describes nothing.
    """
    with custom_object_scope(custom_objects):
        require_names(data)
        return _made(data)


def require_names(data: Any) -> None:
    """Raise ConfigError that lists all classes and functions in `data` that are not known, if any."""
    unknown = [thing for thing in dict.fromkeys(_named(data)) if _known(*thing) is None]
    if unknown:
        raise _not_known(unknown)


def _named(data: Any) -> Iterator[tuple[str | None, str, str]]:
    """Module, name and kind of all classes and functions in data."""
    if isinstance(data, list):
        for item in data:
            yield from _named(item)
    elif isinstance(data, Mapping):
        name, kind = data.get("class_name"), "class"
        if name == FUNCTION:
            name, kind = data.get("config"), "function"
        module = data.get("module")
        if isinstance(name, str) and name not in _MAKERS and isinstance(module, str | None):
            yield module, name, kind
        for item in data.values():
            yield from _named(item)


def _made(data: Any) -> Any:
    if isinstance(data, list):
        return [_made(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    if "class_name" not in data:
        return {key: _made(value) for key, value in data.items()}
    name, config = data["class_name"], _made(data.get("config"))
    if not isinstance(name, str):
        raise ConfigError(f"Expected a class's name as a string. Received: {name!r}")
    if name in _MAKERS:
        try:
            return _MAKERS[name](config)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"Expected the config of a {name!r}. Received: {config!r} ({error})") from None
    if name == FUNCTION:
        return _found(data.get("module"), config, "function")
    made = _found(data.get("module"), name, "class")
    if not isinstance(config, dict) or not hasattr(made, "from_config"):
        raise ConfigError(f"Expected a class with from_config, and its config. Received: {made!r}, {config!r}")
    return _as_it_was(made.from_config(config), data)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    ARRAY: lambda config: np.array(config["value"], _dtype(config["dtype"])),
    TUPLE: lambda config: tuple(_listed(config)),
    SLICE: lambda config: slice(*_listed(config)),
    ELLIPSIS: lambda config: ...,
    TENSOR: lambda config: TensorPlace(*map(_number, _listed(config))),
    VARIABLE: lambda config: VariablePlace(_number(config)),
}


def _listed(config: Any) -> list[Any]:
    if not isinstance(config, list):
        raise TypeError("no list")
    return config


def _number(config: Any) -> int:
    if not isinstance(config, int):
        raise TypeError("no number")
    return config


def _dtype(name: str) -> np.dtype:
    dtype = BF16.numpy if name == BF16.numpy_name else np.dtype(name)
    if dtype.kind not in "biufV" or dtype.itemsize > 8:
        raise TypeError("no dtype of numbers")
    return dtype


def _as_it_was(made: Any, data: Mapping[str, Any]) -> Any:
    """Give a layer its name, and let it not be trained, where its class takes no such arguments."""
    if isinstance(made, Layer):
        if isinstance(data.get("name"), str):
            made.name = data["name"]
        if data.get("trainable") is False:
            made._trainable = False
    return made


def _found(module: Any, name: Any, kind: str) -> Any:
    """The class or function of a name."""
    if not isinstance(name, str):
        raise ConfigError(f"Expected a {kind}'s name as a string. Received: {name!r}")
    known = _known(module, name, kind)
    if known is None:
        raise _not_known([(module, name, kind)])
    return known


def _known(module: Any, name: str, kind: str) -> Any:
    """The class or function of a name: the caller's, a registered one, Gradloom's own; None if there is none."""
    for known in (_custom.get(), _registered):
        for candidate in (name, name.rpartition(">")[2]):
            if candidate in known:
                return known[candidate]
    own = _own_things()
    modules = [module] if module is not None else own if kind == "class" else []
    for place in modules:
        if (
            isinstance(place, str)
            and name in own.get(place, {})
            and isinstance(own[place][name], type) == (kind == "class")
        ):
            return own[place][name]
    return None


def _not_known(things: list[tuple[Any, str, str]]) -> ConfigError:
    modules, names, kinds = zip(*things, strict=True)
    several = len(things) > 1
    if several:
        expected = " and ".join({"class": "classes", "function": "functions"}[kind] for kind in sorted(set(kinds)))
        expected += " of Gradloom's own, registered ones (gl.saving.register_keras_serializable), or some"
    else:
        expected = f"a {kinds[0]} of Gradloom's own, one that is registered (gl.saving.register_keras_serializable), "
        expected += "or one"
    custom = ", ".join(f"{name!r}: …" for name in names)
    received = f"the name{'s' if several else ''} {', '.join(map(repr, names))}"
    where = "" if several or modules[0] is None else f" of {modules[0]!r}"
    return ConfigError(
        f"Expected {expected} in custom_objects: custom_objects={{{custom}}}. Received: {received}{where}"
    )


@functools.cache
def _own_things() -> dict[str, dict[str, Any]]:
    """Gradloom's own classes and functions that files may name, by module and name: a closed list."""
    from gradloom import activations, initializers, layers, losses, metrics, models, ops, optimizers, schedules
    from gradloom.formats.darknet import layers as darknet

    modules = {
        "gradloom.layers": layers,
        "gradloom.models": models,
        "gradloom.initializers": initializers,
        "gradloom.optimizers": optimizers,
        "gradloom.optimizers.schedules": schedules,
        "gradloom.losses": losses,
        "gradloom.metrics": metrics,
        "gradloom.formats.darknet.layers": darknet,
    }
    things: dict[str, dict[str, Any]] = {place: dict(_classes(module)) for place, module in modules.items()}
    for place, module in {
        "gradloom.activations": activations,
        "gradloom.losses": losses,
        "gradloom.metrics": metrics,
    }.items():
        own = vars(module).items()
        things.setdefault(place, {}).update(
            {name: f for name, f in own if inspect.isfunction(f) and f.__module__ == place and not name.startswith("_")}
        )
    functions = {name: function for name, function in vars(ops).items() if inspect.isfunction(function)}
    things["gradloom.ops"] = {name: function for name, function in functions.items() if not name.startswith("_")}
    return things


def _classes(module: ModuleType) -> Iterator[tuple[str, type]]:
    public = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    for name in public:
        thing = getattr(module, name)
        if isinstance(thing, type) and issubclass(thing, Constructed) and hasattr(thing, "get_config"):
            yield name, thing


@functools.cache
def _names_of_own() -> dict[Any, tuple[str, str]]:
    """Module and name of each of Gradloom's own classes and functions."""
    from gradloom.compiler import ops

    names: dict[Any, tuple[str, str]] = {}
    for module, things in _own_things().items():
        for name, thing in things.items():
            names.setdefault(thing, (module, name))
    # Calls are recorded of the functions themselves, which `gl.ops` wraps.
    return {getattr(ops, name): ("gradloom.ops", name) for name in ops.__all__} | names
