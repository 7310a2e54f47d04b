//! A result as one page that needs nothing else: a table and plots drawn as SVG.

use std::fmt::Write as _;

use crate::result::{Outcome, Sample};

/// A plot's drawing area, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
/// Room for the labels.
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const COLOURS: [&str; 3] = ["#1f6feb", "#d1242f", "#1a7f37"];

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:760px;margin:2em auto;\
padding:0 1em;color:#1f2328;background:#fff}h1{font-size:1.3em}h2{font-size:1.05em;margin:1.6em 0 .3em}\
table{border-collapse:collapse}td{padding:.15em 1em .15em 0;vertical-align:top}\
td:first-child{color:#59636e}pre{overflow-x:auto;background:#f6f8fa;padding:.8em}\
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#59636e}\
.warning{color:#d1242f;font-weight:600}";

/// The page.
pub(crate) fn page(outcome: &Outcome) -> String {
    let title = escape(&format!("{}: {}", outcome.sfu, outcome.name));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>"
    );
    for warning in &outcome.generator_limits {
        let warning = escape(warning);
        let _ = write!(
            page,
            "<p class=\"warning\">The generator was the bottleneck: {warning}</p>"
        );
    }
    page.push_str("<table>");
    for line in outcome.summary().lines() {
        let (name, value) = line.split_at_checked(12).unwrap_or(("", line));
        let (name, value) = (escape(name.trim()), escape(value.trim()));
        let _ = write!(page, "<tr><td>{name}<td>{value}</tr>");
    }
    page.push_str("</table>");
    page.push_str(&plots(outcome));
    let plan = serde_json::to_string_pretty(&outcome.plan).unwrap_or_default();
    let _ = write!(page, "<h2>What was run</h2><pre>{}</pre>", escape(&plan));
    page.push_str("</html>\n");
    page
}

fn plots(outcome: &Outcome) -> String {
    let by_second = |figure: fn(&Sample) -> f64| -> Vec<(f64, f64)> {
        let samples = outcome.timeline.iter().enumerate();
        samples
            .map(|(second, sample)| (second as f64 + 1.0, figure(sample)))
            .collect()
    };
    // Nines on the abscissa: 1 is 90 %, 2 is 99 %, 3 is 99.9 %.
    let curve = outcome.delay_curve.iter();
    let curve: Vec<_> = curve
        .map(|(q, us)| (-(1.0 - q).max(1e-9).log10(), *us))
        .collect();
    let nines = [
        (0.0, "0"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
    ];
    let mut out = String::new();
    let mut add = |heading: &str, plot: Plot<'_>| {
        let _ = write!(out, "<h2>{heading}</h2>{}", plot.draw());
    };
    add(
        "Forwarding delay by percentile, us",
        Plot {
            lines: &[("delay", curve)],
            ticks: Some(&nines),
        },
    );
    add(
        "Forwarding delay over time, us",
        Plot {
            lines: &[
                ("p50", by_second(|s| s.delay_p50_us)),
                ("p99", by_second(|s| s.delay_p99_us)),
            ],
            ticks: None,
        },
    );
    add(
        "Delivered packets a second",
        Plot {
            lines: &[("packets", by_second(|s| s.packets as f64))],
            ticks: None,
        },
    );
    add(
        "CPU, percent of a core",
        Plot {
            lines: &[
                ("server", by_second(|s| s.server_cpu_pct.unwrap_or(0.0))),
                ("generator", by_second(|s| s.generator_cpu_pct)),
            ],
            ticks: None,
        },
    );
    out
}

/// Lines over one abscissa, from zero up.
struct Plot<'a> {
    lines: &'a [(&'static str, Vec<(f64, f64)>)],
    /// Named places of the abscissa; seconds when there are none.
    ticks: Option<&'a [(f64, &'static str)]>,
}

impl Plot<'_> {
    fn draw(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let right = points().map(|(x, _)| *x).fold(1e-9, f64::max);
        let top = round_up(points().map(|(_, y)| *y).fold(1e-9, f64::max));
        let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - 8.0);
        let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - 20.0);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        for step in 0..=5 {
            let value = top * f64::from(step) / 5.0;
            let (at, shown) = (y(value), short(value));
            let _ = write!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{WIDTH}\" stroke=\"#d1d9e0\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
                LEFT - 6.0,
                at + 4.0
            );
        }
        let seconds: Vec<(f64, String)> = match self.ticks {
            Some(ticks) => ticks
                .iter()
                .map(|(at, name)| (*at, (*name).to_owned()))
                .collect(),
            None => {
                let every = (right / 6.0).ceil().max(1.0);
                let seconds = (1..=6).map(|i| every * f64::from(i));
                seconds.map(|at| (at, format!("{at:.0} s"))).collect()
            }
        };
        for (at, name) in seconds.iter().filter(|(at, _)| *at <= right) {
            let at = x(*at).min(WIDTH - 24.0);
            let bottom = HEIGHT - 8.0;
            let _ = write!(
                svg,
                "<text x=\"{at:.0}\" y=\"{bottom}\" text-anchor=\"middle\">{name}</text>"
            );
        }
        for (index, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let path: Vec<String> = points
                .iter()
                .map(|(a, b)| format!("{:.1} {:.1}", x(*a), y(*b)))
                .collect();
            let legend = LEFT + 8.0 + 90.0 * index as f64;
            let _ = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
                 <text x=\"{legend}\" y=\"13\" style=\"fill:{colour}\">{name}</text>",
                path.join(",")
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

/// The next number that is 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps.iter().find(|step| *step * power >= value);
    step.unwrap_or(&10.0) * power
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_every_plot() {
        let outcome = Outcome {
            name: "1 x <20>".to_owned(),
            sfu: "corelay".to_owned(),
            timeline: vec![
                Sample {
                    packets: 12,
                    ..Sample::default()
                };
                5
            ],
            delay_curve: vec![(0.0, 10.0), (0.9, 20.0), (0.999, 400.0)],
            ..Outcome::default()
        };
        let page = page(&outcome);
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("1 x &lt;20&gt;") && !page.contains("http"));
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, round) in [(0.3, 0.5), (1.0, 1.0), (47.0, 50.0), (51.0, 100.0)] {
            assert!((round_up(value) - round).abs() < 1e-9, "{value}");
        }
    }
}
