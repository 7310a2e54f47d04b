"""Whether a file is what the Compose specification says, by its own schema.

Run as: compose.py FILE, by a Python that has jsonschema, PyYAML and docker-compose.
"""

import importlib.metadata
import json
import sys

import jsonschema
import yaml

package = importlib.metadata.distribution("docker-compose")
with open(package.locate_file("compose/config/compose_spec.json"), encoding="utf-8") as file:
    schema = json.load(file)
with open(sys.argv[1], encoding="utf-8") as file:
    jsonschema.validate(yaml.safe_load(file), schema)
