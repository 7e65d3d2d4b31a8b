"""JSON schemas of recipes and sweep files, made from the pydantic models, so that editors complete and check the files.

A schema checks keys, types, ranges and choices. Rules about several keys, and names of datasets, prompts and encoders,
are checked when the file is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from trainers.recipe.files.extended_file import EXTENDS, LISTS_OF_ONE
from trainers.recipe.schema import Recipe

Schema = dict[str, Any]
DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest that the YAML language server supports in full."""
TEST_TIME_KEY = "ttt"
NOT_FOR_TEST_TIME = frozenset({"output_dir", "datasets", "max_steps"})
"""Required keys of a training, which test-time training does without."""
_EXTENDS_KEY: Schema = {
    "type": "string",
    "minLength": 1,
    "description": "Another file, relative to this one: its values are used where this file has none.",
}


class _Generator(GenerateJsonSchema):
    """Accepts, where values are converted before they are checked, values of other types than the converted ones.

    A field may declare what it takes by ``json_schema_input_type``; then that is its schema.
    """

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        generated = super().function_before_schema(schema)
        if "json_schema_input_schema" in schema:
            return generated
        return {"anyOf": [generated, {"not": {"type": sorted(_types(generated))}}]}


def _types(schema: Schema) -> set[str]:
    """Return the JSON types of the values that a schema accepts."""
    if "anyOf" in schema:
        return {name for part in schema["anyOf"] for name in _types(part)}
    name = schema.get("type", "string" if "const" in schema or "enum" in schema else "object")
    return {name, "integer"} if name == "number" else {name}


def recipe_schema() -> Schema:
    """Return the JSON schema of a recipe file."""
    return file_schema(Recipe, "Recipe of arc-bench: one training run", {}, {})


def file_schema(
    model: type[BaseModel], title: str, replaced: Mapping[str, Schema], definitions: Mapping[str, Schema]
) -> Schema:
    """Return the JSON schema of a YAML file.

    Args:
        model: what the file's values are validated as.
        replaced: schemas of keys that say more than their types.
        definitions: those that ``replaced`` uses, by name.
    """
    schema = model.model_json_schema(mode="validation", schema_generator=_Generator)
    definitions = {**definitions, **schema.get("$defs", {})}
    complete = {**schema["properties"], **replaced}
    partial = _partial_properties(complete, definitions)
    return {
        "$schema": DIALECT,
        "title": title,
        "description": schema.get("description", title),
        "type": "object",
        "properties": {EXTENDS: _EXTENDS_KEY, **partial},
        "additionalProperties": False,
        "if": {"required": [EXTENDS]},
        "else": {
            "properties": {name: part for name, part in complete.items() if part != partial[name]},
            **_required_keys(schema),
        },
        "$defs": definitions,
    }


def _required_keys(schema: Schema) -> Schema:
    """Return what demands the required keys of a model; fewer, where it has ``ttt`` and the file says it."""
    required = schema.get("required", [])
    if TEST_TIME_KEY not in schema["properties"]:
        return {"required": required}
    return {
        "required": [key for key in required if key not in NOT_FOR_TEST_TIME],
        "if": {"required": [TEST_TIME_KEY], "properties": {TEST_TIME_KEY: {"type": "object"}}},
        "else": {"required": required, "properties": {"datasets": {"minItems": 1}}},
    }


def without_required(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema in which keys of mappings may be absent; lists stay complete, as they are replaced as a whole.

    Args:
        definitions: by name, the schemas to which references lead.
    """
    if "$ref" in schema:
        target = definitions[str(schema["$ref"]).rpartition("/")[2]]
        partial = without_required(target, definitions)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return schema if partial == target else {**partial, **beside}
    result = {key: value for key, value in schema.items() if key != "required"}
    if "anyOf" in schema:
        result["anyOf"] = [without_required(part, definitions) for part in schema["anyOf"]]
    if "properties" in schema:
        result["properties"] = _partial_properties(schema["properties"], definitions)
    return result


def _partial_properties(properties: Mapping[str, Schema], definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    return {
        name: part if name in LISTS_OF_ONE else without_required(part, definitions) for name, part in properties.items()
    }


def nested_recipe_schema(omitted: Collection[str]) -> tuple[Schema, Mapping[str, Schema]]:
    """Return the schema of a recipe that is a part of another file, and the definitions that it uses.

    Its required keys may be absent, as the other file can set them elsewhere.

    Args:
        omitted: keys that the other file sets itself.
    """
    schema = Recipe.model_json_schema(mode="validation", schema_generator=_Generator)
    properties = {name: part for name, part in schema["properties"].items() if name not in omitted}
    return {"type": "object", "properties": properties, "additionalProperties": False}, schema.get("$defs", {})
