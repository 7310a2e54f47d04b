//! What one client may do: its token's grants, or everything where no token is asked for. Pure.

use serde_json::Value;

use crate::engine::command::{Permissions, Source};
use crate::id::RoomId;
use crate::signal::token::{self, Claims, Denied, Key, VideoGrant};

/// Who gets in.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether nothing is allowed without a token.
    pub require_auth: bool,
    /// An HTTP header a token may come in, beside `Authorization`.
    pub token_header: String,
    /// The keys of the tokens, the one that signs new ones first.
    pub keys: Vec<Key>,
}

impl Options {
    /// What whoever shows this token may do at `now`, in seconds since 1970. Without a token
    /// that is everything, unless one is required; a token that is shown is always checked.
    ///
    /// # Errors
    ///
    /// [`Denied`], for the log only.
    pub fn admit(&self, token: Option<&str>, now: u64) -> Result<Access, Denied> {
        match token {
            Some(token) => token::verify(token, &self.keys, now).map(Access::granted),
            None if self.require_auth => Err(Denied::Missing),
            None => Ok(Access::open()),
        }
    }
}

/// What one client may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// `None` where no token was shown.
    claims: Option<Claims>,
}

impl Access {
    /// Everything, as nobody in particular.
    #[must_use]
    pub fn open() -> Self {
        Self { claims: None }
    }

    fn granted(claims: Claims) -> Self {
        Self {
            claims: Some(claims),
        }
    }

    /// Who this is by its token; `None` where no token was shown.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.claims.as_ref()?.sub.as_deref()
    }

    /// What the token calls its holder.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.claims.as_ref()?.name.as_deref()
    }

    /// What the token tells of its holder.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.claims.as_ref()?.metadata.as_ref()
    }

    /// Whether the token still holds at `now`, in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Denied::Expired`].
    pub fn check_holds(&self, now: u64) -> Result<(), Denied> {
        self.claims
            .as_ref()
            .map_or(Ok(()), |claims| claims.check_times(now))
    }

    /// How long the token still holds at `now`, in seconds; for ever where none was shown.
    #[must_use]
    pub fn seconds_left(&self, now: u64) -> u64 {
        // A number of seconds that is none, or is past, becomes 0.
        let left = |claims: &Claims| (claims.exp - now as f64) as u64;
        self.claims.as_ref().map_or(u64::MAX, left)
    }

    /// Whether the room may be entered.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_join(&self, room: &RoomId) -> Result<(), Denied> {
        let Some(claims) = &self.claims else {
            return Ok(());
        };
        if !claims.video.room_join {
            return Err(Denied::NotGranted("roomJoin"));
        }
        if claims.video.room != room.as_str() {
            return Err(Denied::WrongRoom);
        }
        if claims.sub.as_deref().unwrap_or_default().is_empty() {
            return Err(Denied::NoIdentity);
        }
        Ok(())
    }

    /// Whether participants of the room may be removed and muted.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_admin(&self, room: &RoomId) -> Result<(), Denied> {
        let Some(claims) = &self.claims else {
            return Ok(());
        };
        if !claims.video.room_admin {
            return Err(Denied::NotGranted("roomAdmin"));
        }
        if claims.video.room != room.as_str() {
            return Err(Denied::WrongRoom);
        }
        Ok(())
    }

    /// Whether a room may be recorded: its administrator may, and who has the grant for it.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_record(&self, room: &RoomId) -> Result<(), Denied> {
        let Some(claims) = &self.claims else {
            return Ok(());
        };
        if !claims.video.room_record && !claims.video.room_admin {
            return Err(Denied::NotGranted("roomRecord"));
        }
        if claims.video.room != room.as_str() {
            return Err(Denied::WrongRoom);
        }
        Ok(())
    }

    /// Whether rooms may be made and deleted.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_create(&self) -> Result<(), Denied> {
        let granted = self
            .claims
            .as_ref()
            .is_none_or(|claims| claims.video.room_create);
        granted
            .then_some(())
            .ok_or(Denied::NotGranted("roomCreate"))
    }

    /// Whether rooms may be listed, and the server's figures seen.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_list(&self) -> Result<(), Denied> {
        let granted = self
            .claims
            .as_ref()
            .is_none_or(|claims| claims.video.room_list);
        granted.then_some(()).ok_or(Denied::NotGranted("roomList"))
    }

    /// Whether a token with this grant may be minted: for a room it administers, with nothing
    /// that it may not do itself.
    ///
    /// # Errors
    ///
    /// [`Denied`] if not.
    pub fn check_mint(&self, room: &RoomId, wanted: &VideoGrant) -> Result<(), Denied> {
        self.check_admin(room)?;
        if wanted.room_create {
            self.check_create()?;
        }
        if wanted.room_list {
            self.check_list()?;
        }
        Ok(())
    }

    /// What the engine lets its peer do.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        let Some(claims) = &self.claims else {
            return Permissions::ALL;
        };
        let grant = &claims.video;
        let publishes = grant.can_publish.unwrap_or(true) && !grant.hidden;
        let publish = |source: Source| {
            let named = &grant.can_publish_sources;
            let listed = named.iter().any(|name| name == livekit_name(source));
            publishes && (named.is_empty() || listed)
        };
        Permissions {
            microphone: publish(Source::Microphone),
            camera: publish(Source::Camera),
            screen: publish(Source::Screen),
            screen_audio: publish(Source::ScreenAudio),
            subscribe: grant.can_subscribe.unwrap_or(true),
            data: self.may_send_data(),
        }
    }

    /// Whether `data` may be sent.
    #[must_use]
    pub fn may_send_data(&self) -> bool {
        self.claims.as_ref().is_none_or(|claims| {
            let grant = &claims.video;
            let publishes = grant.can_publish.unwrap_or(true);
            grant.can_publish_data.unwrap_or(publishes) && !grant.hidden
        })
    }

    /// Whether the others must not learn of it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.claims
            .as_ref()
            .is_some_and(|claims| claims.video.hidden)
    }
}

/// The `canPublishSources` name of a source.
fn livekit_name(source: Source) -> &'static str {
    match source {
        Source::Microphone => "microphone",
        Source::Camera => "camera",
        Source::Screen => "screen_share",
        Source::ScreenAudio => "screen_share_audio",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signal::fixture::{NOW, key, token};

    fn options(require_auth: bool) -> Options {
        Options {
            require_auth,
            token_header: "X-Auth-Token".to_owned(),
            keys: vec![key()],
        }
    }

    fn access(video: Value) -> Access {
        let token = token("ada", video);
        options(true).admit(Some(&token), NOW).unwrap()
    }

    #[test]
    fn without_a_token_everything_is_allowed_unless_one_is_required() {
        assert_eq!(options(true).admit(None, NOW), Err(Denied::Missing));
        let open = options(false).admit(None, NOW).unwrap();
        let room = RoomId::parse("r").unwrap();
        assert_eq!(open.check_join(&room), Ok(()));
        assert_eq!(open.check_admin(&room), Ok(()));
        assert_eq!(open.permissions(), Permissions::ALL);
        assert!(open.may_send_data() && !open.is_hidden());
        let bad = options(false).admit(Some("x"), NOW);
        assert_eq!(bad, Err(Denied::Malformed));
    }

    #[test]
    fn a_token_grants_what_it_says_for_its_room_and_nothing_else() {
        let (room, other) = (RoomId::parse("r").unwrap(), RoomId::parse("s").unwrap());
        let join = access(json!({"roomJoin": true, "room": "r"}));
        assert_eq!(join.identity(), Some("ada"));
        assert_eq!(join.check_join(&room), Ok(()));
        assert_eq!(join.check_join(&other), Err(Denied::WrongRoom));
        assert_eq!(
            join.check_admin(&room),
            Err(Denied::NotGranted("roomAdmin"))
        );
        assert_eq!(join.check_create(), Err(Denied::NotGranted("roomCreate")));
        assert_eq!(join.check_list(), Err(Denied::NotGranted("roomList")));
        let admin = access(json!({"roomAdmin": true, "room": "r"}));
        assert_eq!(admin.check_admin(&room), Ok(()));
        assert_eq!(admin.check_admin(&other), Err(Denied::WrongRoom));
        assert_eq!(admin.check_join(&room), Err(Denied::NotGranted("roomJoin")));
        // A token without a room is for none.
        let roomless = access(json!({"roomJoin": true}));
        assert_eq!(roomless.check_join(&room), Err(Denied::WrongRoom));
    }

    #[test]
    fn what_may_be_published_watched_and_said_follows_the_grants() {
        let all = access(json!({"roomJoin": true}));
        assert_eq!(all.permissions(), Permissions::ALL);
        assert!(all.may_send_data());
        let mute = access(json!({"canPublish": false}));
        assert_eq!(
            mute.permissions(),
            Permissions {
                subscribe: true,
                ..Permissions::NONE
            }
        );
        assert!(!mute.may_send_data(), "data follows canPublish");
        let chat = access(json!({"canPublish": false, "canPublishData": true}));
        assert!(chat.may_send_data());
        let voice = access(json!({"canPublishSources": ["microphone"], "canSubscribe": false}));
        let only = Permissions {
            microphone: true,
            data: true,
            ..Permissions::NONE
        };
        assert_eq!(voice.permissions(), only);
        let hidden = access(json!({"hidden": true}));
        assert!(hidden.is_hidden() && !hidden.may_send_data());
        assert_eq!(
            hidden.permissions(),
            Permissions {
                subscribe: true,
                ..Permissions::NONE
            }
        );
    }
}
