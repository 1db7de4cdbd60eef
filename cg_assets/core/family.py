"""Families of settings: members that a YAML file picks by `type`, each found by being defined.

A family is a class of settings; its members are subclasses with a `type` of their own. Validating against the family
takes the member that `type` names, wherever it was defined, so that adding a member is adding a file.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from typing import Any, ClassVar, Self, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from cg_assets.core.settings import Fault, Strict


class Family(Strict):
    """Settings of one of several members; subclass it with `family="..."` to begin a family, then without for members.

    Attributes:
        type: name of the member, a `Literal` in each.
    """

    type: str
    _family: ClassVar[str] = ""
    _members: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, *, family: str = "", **kwargs: Any) -> None:
        """Begin a family, or join that of the parent."""
        super().__init_subclass__(**kwargs)
        if family:
            cls._family, cls._members = family, {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Join the family by the names of `type`.

        Raises:
            TypeError: two members of a family have one name.
        """
        super().__pydantic_init_subclass__(**kwargs)
        for name in get_args(cls.model_fields["type"].annotation):
            known = cls._members.setdefault(name, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"{cls._family} {name}: {known.__module__} and {cls.__module__} both define it")

    def misfit(self, model: str) -> Fault:
        """The fault of a member that does not fit a type of model, with those that do."""
        fitting = [name for name, member in self._members.items() if model in (member.goes_with or [model])]
        return Fault("type", f"is {self.type}, which does not fit model.type {model}; choose {', '.join(fitting)}")

    @classmethod
    def members(cls) -> dict[str, builtins.type[Self]]:
        """Every member that has been defined, by name."""
        return dict(cls._members)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Of the family: the schema of whichever member `type` names; of a member: its own."""
        own = super().__get_pydantic_core_schema__(source, handler)
        if "_members" not in vars(cls):
            return own
        return core_schema.no_info_plain_validator_function(
            cls._validate_member, serialization=core_schema.simple_ser_schema("any")
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Of the family: any of its members; of a member: its own."""
        if "_members" not in vars(cls):
            return super().__get_pydantic_json_schema__(schema, handler)
        members = dict.fromkeys(cls._members.values())
        return {
            "anyOf": [item.__get_pydantic_json_schema__(item.__pydantic_core_schema__, handler) for item in members]
        }

    @classmethod
    def _validate_member(cls, value: Any) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("family", "Input should be fields with a `type`")
        if "type" not in value:
            raise PydanticCustomError("family", "type is missing; choose one of {known}", {"known": cls._names()})
        if value["type"] not in list(cls._members):
            given = {"given": repr(value["type"]), "known": cls._names()}
            raise PydanticCustomError("family", "type is {given}; choose one of {known}", given)
        member = cls._members[value["type"]]
        return member.model_validate(value)

    @classmethod
    def _names(cls) -> str:
        return ", ".join(cls._members)


def import_settings(package: str, folders: Iterable[str]) -> None:
    """Import `settings` of each package within a package, which registers the members they define."""
    for found in pkgutil.iter_modules(folders):
        if found.ispkg and importlib.util.find_spec(f"{package}.{found.name}.settings"):
            importlib.import_module(f"{package}.{found.name}.settings")
