"""What do all nodes of criteria have in common, and how do they say what is wrong with them?"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    SkipValidation,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic import Field as Part
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from marketing.segment_fields import Operators
from marketing.segment_operands import Misfit, Operand, OperandValue

Place = tuple[str | int, ...]


def refuse(*wrong: tuple[Place, str]) -> NoReturn:
    """Raise what Pydantic lays its own places before, up to the root."""
    details = [
        InitErrorDetails(type=PydanticCustomError("criteria", "{told}", {"told": told}), loc=place, input=None)
        for place, told in wrong
    ]
    raise ValidationError.from_exception_data("criteria", details)


def absent(value: object) -> bool:
    return value is None


def optional(description: str | None = None) -> Any:
    """A part that may be left out; then it is not written either."""
    return Part(None, exclude_if=absent, description=description)


class Node(BaseModel):
    """One question, or several put together."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


def kept_by(operand: Operand) -> BeforeValidator:
    """Reads a part as this operand does."""

    def read(written: object) -> OperandValue:
        try:
            return operand.read(written)
        except Misfit as wrong:
            refuse((wrong.place, f"{str(wrong).rstrip('.')}."))

    return BeforeValidator(read)


class Asking(Node):
    """A node with exactly one operator, written as `{"at_least": 2}` among its other parts."""

    OPERATORS: ClassVar[Operators] = {}

    operator: str
    operand: Annotated[OperandValue, SkipValidation, PlainSerializer(lambda kept: kept)]  # the operator has read it

    @classmethod
    def operators(cls, _written: Mapping[str, Any]) -> Operators:
        """Those of which what is written here takes one."""
        return cls.OPERATORS

    @model_validator(mode="before")
    @classmethod
    def _one_operator(cls, written: object) -> object:
        if isinstance(written, cls):
            return written
        if not isinstance(written, dict):
            refuse(((), f"takes an object with one of {', '.join(cls.OPERATORS)}."))
        operators = cls.operators(written)
        parts = {field.alias or name for name, field in cls.model_fields.items()} - {"operator", "operand"}
        given = [name for name in written if name not in parts]
        choice = ", ".join(operators)
        for name in given:
            if name not in operators:
                refuse(((str(name),), f"is not understood here. Give one of {choice}."))
        if len(given) != 1:
            refuse(((), f"Give exactly one of {choice}."))
        (name,) = given
        try:
            operand = operators[name].read(written[name])
        except Misfit as wrong:
            refuse(((name, *wrong.place), f"{str(wrong).rstrip('.')}."))
        return {**{part: written[part] for part in written if part in parts}, "operator": name, "operand": operand}

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        operator, operand = written.pop("operator"), written.pop("operand")
        return {**written, operator: operand}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler.resolve_ref_schema(handler(schema))
        return cls._with_operators(described, cls.OPERATORS)

    @staticmethod
    def _with_operators(described: dict[str, Any], operators: Operators) -> dict[str, Any]:
        properties = {
            name: part for name, part in described["properties"].items() if name not in ("operator", "operand")
        }
        return {
            **described,
            "properties": {**properties, **{name: operand.schema for name, operand in operators.items()}},
            "required": [name for name in described["required"] if name in properties],
            "oneOf": [{"required": [name]} for name in operators],
        }


def by_key(*keys: str) -> Discriminator:
    """Tells nodes apart by the first of these keys that they have."""

    def tag(node: object) -> str | None:
        parts = node if isinstance(node, dict) else type(node).model_fields if isinstance(node, Node) else ()
        return next((key for key in keys if key in parts or f"{key}_" in parts), None)

    return Discriminator(
        tag,
        custom_error_type="criteria",
        custom_error_message=f"Give an object with one of {', '.join(sorted(keys))}.",
    )
