//! Plots as inline SVG. Only the plane is drawn, and it is stretched to the room there is (strokes are not): what is
//! written beside it is text of the page, and stays as large on a phone as in print. Kinds of marks are told apart by
//! their form, too, not by colour alone.

use maud::{Markup, html};

use super::at::At;
pub use super::scale::Unit;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Bars; those of several series stand one on the other.
    Bars,
    /// Points, with lines between them.
    Line,
    /// Points alone.
    Points,
}

/// Values of one kind, one for each step, where there is one.
pub struct Series<'a> {
    pub name: String,
    pub form: Form,
    /// Colour and dashes.
    pub class: &'static str,
    pub values: Vec<At<'a>>,
}

/// A plot.
pub struct Plot<'a> {
    pub id: &'static str,
    pub title: &'static str,
    /// What it shows, in a sentence.
    pub about: String,
    pub unit: Unit,
    pub series: Vec<Series<'a>>,
    /// What each step is called.
    pub steps: Vec<String>,
}

/// Width and height of the plane in its own units.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
/// Parts that the height is divided into.
const PARTS: u32 = 4;

/// A value that is drawn: its step, and where it is.
struct Mark<'p, 'a> {
    at: &'p At<'a>,
    value: f64,
    step: usize,
    x: f64,
    /// From the top.
    y: f64,
    height: f64,
    series: &'p Series<'a>,
}

impl<'a> Plot<'a> {
    /// The highest value, bars standing on each other.
    fn most(&self) -> f64 {
        let mut most: f64 = 0.0;
        for step in 0..self.steps.len() {
            let at = |s: &Series<'_>| s.values.get(step).and_then(At::number).unwrap_or(0.0);
            let (bars, others): (Vec<_>, Vec<_>) =
                self.series.iter().partition(|s| s.form == Form::Bars);
            most = most.max(bars.into_iter().map(at).sum());
            most = others.into_iter().map(at).fold(most, f64::max);
        }
        most
    }

    /// Whether there is nothing to see.
    fn is_empty(&self) -> bool {
        let unknown = |s: &Series<'_>| s.values.iter().all(At::is_null);
        match self.unit {
            // No room at all is something to see.
            Unit::Percent => self.series.iter().all(unknown),
            _ => self.most() == 0.0,
        }
    }

    /// Draws it.
    pub fn draw(&self) -> Markup {
        let top = self.unit.top(self.most());
        let parts: Vec<f64> = (0..=PARTS)
            .map(|n| f64::from(n) / f64::from(PARTS))
            .collect();
        let title = format!("plot-{}", self.id);
        let middle = (self.steps.len() > 4).then(|| &self.steps[self.steps.len() / 2]);
        let last = self.steps.last().filter(|_| self.steps.len() > 1);
        let lines = self.series.iter().filter(|s| s.form != Form::Bars);
        html! {
            figure .plot {
                figcaption #(title) {
                    strong { (self.title) } " "
                    span .about { (self.about) }
                }
                @if self.is_empty() {
                    p .nothing { "Nothing to show in this period." }
                } @else {
                    ul .legend {
                        @for series in &self.series {
                            li { (key(series)) (series.name) }
                        }
                    }
                    div .plane {
                        ol .scale aria-hidden="true" {
                            @for part in parts.iter().rev() { li { (self.unit.tick(top * part)) } }
                        }
                        svg role="img" aria-labelledby=(title) preserveAspectRatio="none"
                            viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) {
                            @for part in &parts {
                                path .grid d=(format!("M0 {}H{WIDTH}", digits(HEIGHT * part))) {}
                            }
                            @for mark in self.bars(top) { (self.bar(&mark)) }
                            @for series in lines { (self.line(series, top)) }
                        }
                        ol .steps aria-hidden="true" {
                            @for step in self.steps.first().into_iter().chain(middle).chain(last) {
                                li { (step) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn slot(&self) -> f64 {
        WIDTH / self.steps.len().max(1) as f64
    }

    fn bars(&self, top: f64) -> Vec<Mark<'_, 'a>> {
        let mut marks = Vec::new();
        for step in 0..self.steps.len() {
            let mut y = HEIGHT;
            for series in self.series.iter().filter(|s| s.form == Form::Bars) {
                let at = series.values.get(step);
                let value = at.and_then(At::number).filter(|value| *value > 0.0);
                if let (Some(at), Some(value)) = (at, value) {
                    let height = value / top * HEIGHT;
                    y -= height;
                    marks.push(Mark {
                        at,
                        value,
                        step,
                        x: self.slot() * (step as f64 + 0.5),
                        y,
                        height,
                        series,
                    });
                }
            }
        }
        marks
    }

    fn bar(&self, mark: &Mark<'_, '_>) -> Markup {
        let width = (self.slot() * 0.76).min(60.0);
        html! {
            rect class=(mark.series.class) x=(digits(mark.x - width / 2.0)) y=(digits(mark.y))
                width=(digits(width)) height=(digits(mark.height))
                data-json=(mark.at.pointer()) data-value=(mark.at.raw()) { (self.tip(mark)) }
        }
    }

    /// What a pointer that stays on a mark is told.
    fn tip(&self, mark: &Mark<'_, '_>) -> Markup {
        let step = self.steps.get(mark.step).map_or("", String::as_str);
        html! { title { (step) ": " (mark.series.name) " " (self.unit.say(mark.value)) } }
    }

    fn line<'p>(&'p self, series: &'p Series<'a>, top: f64) -> Markup {
        let mark = |(step, at): (usize, &'p At<'a>)| {
            let value = at.number()?;
            let height = (value / top * HEIGHT).min(HEIGHT);
            Some(Mark {
                at,
                value,
                step,
                x: self.slot() * (step as f64 + 0.5),
                y: HEIGHT - height,
                height,
                series,
            })
        };
        let marks: Vec<_> = series.values.iter().enumerate().filter_map(mark).collect();
        let mut line = String::new();
        for mark in &marks {
            let letter = if line.is_empty() { 'M' } else { 'L' };
            line.push_str(&format!("{letter}{} {}", digits(mark.x), digits(mark.y)));
        }
        html! {
            @if series.form == Form::Line && marks.len() > 1 {
                path class=(format!("line {}", series.class)) d=(line) {}
            }
            @for mark in &marks {
                // A line without length and with round ends: a dot, however the plane is stretched.
                path class=(format!("dot {}", series.class))
                    d=(format!("M{} {}h0", digits(mark.x), digits(mark.y)))
                    data-json=(mark.at.pointer()) data-value=(mark.at.raw()) { (self.tip(mark)) }
            }
        }
    }
}

/// The mark before a name in the legend.
fn key(series: &Series<'_>) -> Markup {
    let class = series.class;
    html! {
        svg .key viewBox="0 0 24 12" aria-hidden="true" {
            @match series.form {
                Form::Bars => rect class=(class) x="2" y="1" width="20" height="10" {},
                Form::Line => {
                    path class=(format!("line {class}")) d="M1 6H23" {}
                    path class=(format!("dot {class}")) d="M12 6h0" {}
                }
                Form::Points => path class=(format!("dot {class}")) d="M12 6h0" {},
            }
        }
    }
}

/// At most one digit after the point: a page has thousands of these.
fn digits(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plot(values: &Value, form: Form) -> String {
        let series = |name: &str| Series {
            name: name.to_owned(),
            form,
            class: "s0",
            values: At::whole(values).items().collect(),
        };
        let steps = values.as_array().unwrap().iter().enumerate();
        let plot = Plot {
            id: "x",
            title: "t",
            about: String::new(),
            unit: Unit::Count,
            series: vec![series("a"), series("<b>")],
            steps: steps.map(|(n, _)| n.to_string()).collect(),
        };
        plot.draw().into_string()
    }

    #[test]
    fn bars_stand_on_each_other_and_lines_pass_over_what_is_missing() {
        let values = json!([4, null, 8]);
        let bars = plot(&values, Form::Bars);
        assert_eq!(bars.matches(r#"data-json="/2" data-value="8""#).count(), 2);
        assert!(!bars.contains(r#"data-json="/1""#));
        // Sixteen at the top: both of the last step fill it.
        assert!(
            bars.contains(r#"y="100""#) && bars.contains(r#"y="0""#),
            "{bars}"
        );
        assert!(!bars.contains("<b>"));
        let line = plot(&values, Form::Line);
        assert!(line.contains(r#"d="M166.7 100L833.3 0""#), "{line}");
        assert!(plot(&json!([0, null]), Form::Bars).contains("Nothing to show"));
    }
}
