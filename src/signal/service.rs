//! How a client is served, in figures: `stats` on the wire, and part of a room's diagnosis.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::command::{Fares, PeerFigures, PublishFigures, Size, WatchFigures};
use crate::id::TrackId;
use crate::signal::message::Shown;
use crate::signal::quality::ReasonName;

/// How a client is served.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Service {
    /// The path to it.
    pub connection: Connection,
    /// What plays to it, one entry for each slot in use.
    pub subscriptions: Vec<Subscription>,
    /// What it publishes.
    pub tracks: Vec<Published>,
}

/// How the path to a client is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Connection {
    /// What it carries, as estimated, in kbit/s; `null` while the client watches nothing.
    pub estimate: Option<u64>,
    /// Audio and video that are sent, in kbit/s.
    pub bitrate: u64,
    /// Packets that do not arrive at first, in per cent; `null` until the client reports.
    pub loss: Option<f64>,
    /// How unevenly packets arrive, in ms, likewise.
    pub jitter: Option<f64>,
    /// The round trip in ms, likewise.
    pub rtt: Option<f64>,
}

/// One track that plays to a client.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Which.
    #[schema(value_type = String)]
    pub track_id: Shown<TrackId>,
    /// In which m-line.
    pub mid: String,
    /// What is sent of it, in kbit/s.
    pub bitrate: u64,
    /// Packets that do not arrive at first, in per cent; `null` until the client reports.
    pub loss: Option<f64>,
    /// How unevenly they arrive, in ms, likewise.
    pub jitter: Option<f64>,
    /// The place of the layer sent among all, 0 the smallest; `null` for sound and when nothing is
    /// sent.
    pub layer: Option<u8>,
    /// Its width in pixels, where that is known.
    pub width: Option<u16>,
    /// Its height in pixels, likewise.
    pub height: Option<u16>,
    /// Why it is not a better one, as `quality` says; `null` for sound.
    pub reason: Option<ReasonName>,
    /// How often its picture has stood still, as far as the server can tell.
    pub freezes: u32,
    /// For how long in all, in ms.
    pub frozen: u64,
}

/// One track that a client publishes.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// Which.
    #[schema(value_type = String)]
    pub track_id: Shown<TrackId>,
    /// In which m-line.
    pub mid: String,
    /// To how many it plays.
    pub watchers: usize,
    /// What arrives of it, the smallest layer first.
    pub layers: Vec<Layer>,
}

/// One layer that arrives.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, ToSchema)]
pub struct Layer {
    /// Its RID; `null` where it has none.
    pub rid: Option<String>,
    /// In kbit/s.
    pub bitrate: u64,
    /// In pixels, where that is known.
    pub width: Option<u16>,
    /// Likewise.
    pub height: Option<u16>,
}

impl From<&PeerFigures> for Service {
    fn from(figures: &PeerFigures) -> Self {
        let sent_bps: u64 = figures.watches.iter().map(|watch| watch.sent_bps).sum();
        Self {
            connection: Connection {
                estimate: figures.estimated_bps.map(kbps),
                bitrate: kbps(sent_bps),
                loss: figures.fares.map(loss),
                jitter: figures.fares.map(jitter),
                rtt: figures.rtt.map(|rtt| tenths(rtt.as_secs_f64() * 1e3)),
            },
            subscriptions: figures.watches.iter().map(Subscription::from).collect(),
            tracks: figures.publishes.iter().map(Published::from).collect(),
        }
    }
}

impl From<&WatchFigures> for Subscription {
    fn from(watch: &WatchFigures) -> Self {
        Self {
            track_id: Shown(watch.track),
            mid: watch.mid.clone(),
            bitrate: kbps(watch.sent_bps),
            loss: watch.fares.map(loss),
            jitter: watch.fares.map(jitter),
            layer: watch.layer,
            width: watch.size.map(|size: Size| size.width),
            height: watch.size.map(|size: Size| size.height),
            reason: watch.reason.map(ReasonName::from),
            freezes: watch.freezes.count,
            frozen: ms(watch.freezes.total),
        }
    }
}

impl From<&PublishFigures> for Published {
    fn from(publish: &PublishFigures) -> Self {
        let layers = publish.layers.iter().map(|layer| Layer {
            rid: layer.rid.clone(),
            bitrate: kbps(layer.bps),
            width: layer.size.map(|size| size.width),
            height: layer.size.map(|size| size.height),
        });
        Self {
            track_id: Shown(publish.track),
            mid: publish.mid.clone(),
            watchers: publish.watchers,
            layers: layers.collect(),
        }
    }
}

fn kbps(bps: u64) -> u64 {
    (bps + 500) / 1_000
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn loss(fares: Fares) -> f64 {
    f64::from(fares.lost_permille) / 10.0
}

fn jitter(fares: Fares) -> f64 {
    tenths(f64::from(fares.jitter_us) / 1e3)
}

/// More would be noise.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{LayerFigures, Reason};
    use crate::id::PeerId;
    use crate::signal::message::{Reference, ServerMessage};

    #[test]
    fn figures_are_written_as_documented() {
        let track = TrackId {
            peer: PeerId::new(0x2a),
            number: 1,
        };
        let size = Some(Size {
            width: 640,
            height: 360,
        });
        let fares = Some(Fares {
            lost_permille: 15,
            jitter_us: 3_260,
        });
        let figures = PeerFigures {
            estimated_bps: Some(812_600),
            fares,
            rtt: Some(Duration::from_micros(41_230)),
            watches: vec![WatchFigures {
                track,
                mid: "4".to_owned(),
                sent_bps: 498_600,
                fares: None,
                layer: Some(1),
                size,
                reason: Some(Reason::Bandwidth),
                freezes: Default::default(),
            }],
            publishes: vec![PublishFigures {
                track,
                mid: "0".to_owned(),
                watchers: 2,
                layers: vec![LayerFigures {
                    rid: Some("q".to_owned()),
                    bps: 149_900,
                    size: None,
                }],
            }],
        };
        let message = ServerMessage::Stats {
            service: Service::from(&figures),
            reference: Some(Reference::Number(7.into())),
        };
        let golden = r#"{"type":"stats","connection":{"estimate":813,"bitrate":499,"loss":1.5,
            "jitter":3.3,"rtt":41.2},"subscriptions":[{"trackId":"t_000000000000002a_1","mid":"4",
            "bitrate":499,"loss":null,"jitter":null,"layer":1,"width":640,"height":360,
            "reason":"bandwidth","freezes":0,"frozen":0}],"tracks":[{
            "trackId":"t_000000000000002a_1","mid":"0","watchers":2,"layers":[{"rid":"q",
            "bitrate":150,"width":null,"height":null}]}],"ref":7}"#;
        let golden: String = golden.lines().map(str::trim).collect();
        assert_eq!(message.to_json(), golden);
    }
}
