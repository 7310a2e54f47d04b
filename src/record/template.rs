//! Where a recording's directory is, made of its room and its time.

use std::path::PathBuf;

use super::order::RecordingId;
use crate::id::RoomId;

/// A relative path with `{room}`, `{date}`, `{time}` and `{id}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Default for Template {
    fn default() -> Self {
        Self("{room}/{date}-{time}-{id}".to_owned())
    }
}

impl Template {
    /// Reads a template. It has `{id}`, so that no two recordings meet, and stays below the
    /// directory of the recordings: letters, digits, `-`, `_`, `.`, `/` and what is in braces,
    /// and no part that begins with a dot.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bare = text.to_owned();
        for known in ["{room}", "{date}", "{time}", "{id}"] {
            bare = bare.replace(known, "x");
        }
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_part =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_legal);
        let fits = text.len() <= 200 && text.contains("{id}") && bare.split('/').all(is_part);
        fits.then(|| Self(text.to_owned()))
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory of one recording. Room and recording have names without dots and slashes.
    #[must_use]
    pub fn fill(&self, room: &RoomId, id: &RecordingId, unix_ms: u64) -> PathBuf {
        let (date, time) = date_and_time(unix_ms / 1000);
        let filled = self
            .0
            .replace("{room}", room.as_str())
            .replace("{date}", &date)
            .replace("{time}", &time)
            .replace("{id}", id.as_str());
        PathBuf::from(filled)
    }
}

/// `20240229` and `235959`, in UTC. The days by Hinnant's `civil_from_days`: years begin in March.
fn date_and_time(unix: u64) -> (String, String) {
    let (days, second) = (unix / 86_400 + 719_468, unix % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (
        format!("{year:04}{month:02}{day:02}"),
        format!("{hour:02}{minute:02}{second:02}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_the_calendars() {
        let told = |unix| {
            let (date, time) = date_and_time(unix);
            format!("{date} {time}")
        };
        assert_eq!(told(0), "19700101 000000");
        assert_eq!(told(951_782_399), "20000228 235959");
        assert_eq!(told(951_782_400), "20000229 000000");
        assert_eq!(told(1_709_251_199), "20240229 235959");
        assert_eq!(told(4_107_542_400), "21000301 000000");
    }

    #[test]
    fn a_template_cannot_lead_out_of_its_directory() {
        for bad in [
            "",
            "{room}",
            "/{id}",
            "../{id}",
            "{id}/..",
            "a//{id}",
            "{id}/.hidden",
            "{name}/{id}",
            "a\\{id}",
            "{id}\0",
        ] {
            assert_eq!(Template::parse(bad), None, "{bad:?}");
        }
        let template = Template::parse("calls/{room}.{date}/{id}").unwrap();
        let room = RoomId::parse("daily").unwrap();
        let path = template.fill(&room, &RecordingId::new(7), 0);
        let expected = "calls/daily.19700101/rec_0000000000000007";
        assert_eq!(path.to_str(), Some(expected));
    }
}
