//! Parses `config/*.yaml` into each module's own `Options`; nobody imports it.
