//! The messages of `/ws` as AsyncAPI 3.0, written from their types: `docs/messages.json`.

#[cfg(test)]
mod tests {
    use std::path::Path;

    use schemars::generate::SchemaSettings;
    use serde_json::{Value, json};

    use crate::signal::message::ServerMessage;
    use crate::signal::request::ClientMessage;

    fn document() -> Value {
        let mut settings = SchemaSettings::draft07();
        settings.definitions_path = "/components/schemas".into();
        let mut generator = settings.into_generator();
        let said = generator.subschema_for::<ClientMessage>();
        let told = generator.subschema_for::<ServerMessage>();
        let schemas = generator.take_definitions(true);
        let message = |name: &str| json!({"$ref": format!("#/channels/ws/messages/{name}")});
        json!({
            "asyncapi": "3.0.0",
            "info": {
                "title": "corelay",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "JSON text over a WebSocket; protocol.md says what each means.",
            },
            "channels": {"ws": {
                "address": "/ws",
                "messages": {
                    "said": {"title": "What a client says", "payload": said},
                    "told": {"title": "What a client is told", "payload": told},
                },
            }},
            "operations": {
                "say": {
                    "action": "receive",
                    "channel": {"$ref": "#/channels/ws"},
                    "messages": [message("said")],
                },
                "tell": {
                    "action": "send",
                    "channel": {"$ref": "#/channels/ws"},
                    "messages": [message("told")],
                },
            },
            "components": {"schemas": schemas},
        })
    }

    #[test]
    fn the_description_in_docs_is_of_these_messages() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/messages.json");
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("CORELAY_WRITE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let told = "it is not: run `CORELAY_WRITE_DOCS=1 cargo test --lib schema`";
        assert!(
            std::fs::read_to_string(&path).is_ok_and(|old| old == text),
            "{told}"
        );
    }

    #[test]
    fn every_message_is_described() {
        let text = document().to_string();
        for kind in [
            "join",
            "token",
            "offer",
            "ice-candidate",
            "leave",
            "subscribe",
            "set-layout",
            "joined",
            "request-offer",
            "answer",
            "slots",
            "kicked",
            "room-closed",
            "pong",
        ] {
            assert!(text.contains(&format!(r#""const":"{kind}""#)), "{kind}");
        }
    }
}
