//! Draws figures of `docs/benchmarks.md` as SVG charts. The tables of that page are the only input, so that the charts
//! show the same numbers.

use std::fmt::Write as _;
use std::path::Path;

/// The page with the tables.
pub const PAGE: &str = "docs/benchmarks.md";
/// The directory of the charts.
pub const DIRECTORY: &str = "docs/charts";

/// A file with one chart.
struct Chart {
    file: &'static str,
    title: &'static str,
    sections: &'static [Section],
}

/// Bars with one scale.
struct Section {
    unit: &'static str,
    pairs: &'static [Pair],
}

/// A row of the table whose last column has two values, such as "46226 of 55238 requests/s", or only the first one.
struct Pair {
    figure: &'static str,
    /// What the two values belong to. The first is Latchkey under test, the second the reference.
    names: [&'static str; 2],
}

const CHARTS: [Chart; 4] = [
    Chart {
        file: "throughput.svg",
        title: "Throughput of guarded requests",
        sections: &[Section {
            unit: "requests per second",
            pairs: &[
                Pair { figure: "guarded against unguarded: requests/s", names: ["guarded", "unguarded"] },
                Pair {
                    figure: "guarded against a bare actix-web handler with the same answer: requests/s",
                    names: ["guarded", "bare handler, same response"],
                },
                Pair {
                    figure: "guarded against a bare actix-web handler with the same body, without the header fields: requests/s",
                    names: ["guarded", "bare handler, same body only"],
                },
                Pair {
                    figure: "guarded by cookie against guarded by token: requests/s",
                    names: ["guarded by cookie", "guarded by token"],
                },
                Pair { figure: "forward-auth against unguarded: requests/s", names: ["forward-auth", "unguarded"] },
                Pair {
                    figure: "guarded against unguarded, cache off: requests/s",
                    names: ["guarded, cache off", "unguarded"],
                },
            ],
        }],
    },
    Chart {
        file: "p99.svg",
        title: "Response times at full load: 99 % are shorter",
        sections: &[Section {
            unit: "milliseconds",
            pairs: &[
                Pair { figure: "guarded against unguarded: p99", names: ["guarded", "unguarded"] },
                Pair {
                    figure: "guarded against a bare actix-web handler with the same answer: p99",
                    names: ["guarded", "bare handler, same response"],
                },
            ],
        }],
    },
    Chart {
        file: "storm.svg",
        title: "128 clients sign in without pause",
        sections: &[
            Section {
                unit: "guard: 99 % of the response times are shorter, milliseconds",
                pairs: &[Pair {
                    figure: "guard p99 while 128 clients sign in without pause, against idle",
                    names: ["during the sign-ins", "idle"],
                }],
            },
            Section {
                unit: "sign-ins of 64 clients per second",
                pairs: &[Pair {
                    figure: "sign-ins of 64 clients against the bcrypt crate on all cores",
                    names: ["Latchkey", "bcrypt crate on all cores"],
                }],
            },
        ],
    },
    Chart {
        file: "users.svg",
        title: "One million users against one thousand",
        sections: &[Section {
            unit: "guarded requests per second",
            pairs: &[
                Pair {
                    figure: "1000000 users against 1000, cached: requests/s",
                    names: ["1,000,000 users", "1,000 users"],
                },
                Pair {
                    figure: "1000000 users against 1000, cache off: requests/s",
                    names: ["1,000,000 users, cache off", "1,000 users, cache off"],
                },
            ],
        }],
    },
];

const DATABASES: [&str; 2] = ["SQLite", "PostgreSQL"];

/// Writes the charts of the page in the current directory.
pub fn write() {
    let page = std::fs::read_to_string(PAGE).expect("the page exists");
    std::fs::create_dir_all(DIRECTORY).expect("the directory can be created");
    for (figure, database) in missing(&page) {
        eprintln!("{PAGE} lacks two values of {figure:?} on {database}");
    }
    for (file, drawing) in draw(&page) {
        std::fs::write(Path::new(DIRECTORY).join(file), drawing).expect("the chart can be written");
    }
}

/// File names and contents of the charts. Figures that the page does not contain are left out.
pub fn draw(page: &str) -> Vec<(&'static str, String)> {
    CHARTS.iter().map(|chart| (chart.file, chart.draw(page))).collect()
}

/// The figures of which the page lacks one of the two values.
pub fn missing(page: &str) -> Vec<(&'static str, &'static str)> {
    let pairs = CHARTS.iter().flat_map(|chart| chart.sections).flat_map(|section| section.pairs);
    let all = pairs.flat_map(|pair| DATABASES.map(|database| (pair.figure, database)));
    all.filter(|(figure, database)| values(page, figure, database).len() < 2).collect()
}

/// The values of a figure, as written in the last column: those of Latchkey and of the reference. A row replaces
/// earlier ones of the same name. Empty if the page has no such row.
fn values<'p>(page: &'p str, figure: &str, database: &str) -> Vec<&'p str> {
    let start = format!("| {figure} | {database} |");
    let row = page.lines().rev().find(|line| line.starts_with(&start));
    let shown = row.and_then(|row| row.trim_end_matches('|').rsplit('|').next()).unwrap_or_default();
    shown.split_whitespace().filter(|word| word.parse::<f64>().is_ok()).take(2).collect()
}

const WIDTH: u32 = 760;
/// Where bars begin, and the length of the longest one.
const LEFT: u32 = 250;
const LONGEST: f64 = 400.0;
const BAR: u32 = 16;

/// Colours for light and for dark pages. The chart has a background of its own, so it is readable on any.
const STYLE: &str = "\
.card{fill:#fff;stroke:#d0d7de}.text{fill:#1f2328}.quiet{fill:#59636e}.measured{fill:#0969da}.reference{fill:#9ba5b1}\
text{font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}.database{font-weight:600}\
@media(prefers-color-scheme:dark){.card{fill:#151b23;stroke:#3d444d}.text{fill:#f0f6fc}.quiet{fill:#9198a1}\
.measured{fill:#4493f8}.reference{fill:#656c76}}";

impl Chart {
    fn draw(&self, page: &str) -> String {
        let (mut body, mut top) = (String::new(), 34);
        text(&mut body, 20, top, "text title", "start", self.title);
        for (position, section) in self.sections.iter().enumerate() {
            top += if position == 0 { 24 } else { 44 };
            text(&mut body, 20, top, "quiet", "start", section.unit);
            section.draw(page, &mut body, &mut top);
        }
        let height = top + 20;
        let title = self.title;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
             <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n{body}</svg>\n",
            WIDTH - 1,
            height - 1,
        )
    }
}

impl Section {
    /// Draws the bars of both databases below `top`, and moves it to the end of the last one.
    fn draw(&self, page: &str, body: &mut String, top: &mut u32) {
        let found = |database| {
            let pairs = self.pairs.iter().map(move |pair| (pair, values(page, pair.figure, database)));
            pairs.filter(|(_, values)| !values.is_empty())
        };
        let number = |text: &str| text.parse::<f64>().unwrap_or_default();
        let all = DATABASES.iter().flat_map(|database| found(*database)).flat_map(|(_, values)| values);
        let largest = all.map(number).fold(f64::MIN_POSITIVE, f64::max);
        for database in DATABASES {
            for (position, (pair, values)) in found(database).enumerate() {
                *top += if position == 0 { 30 } else { 10 };
                if position == 0 {
                    text(body, 20, *top, "text database", "start", database);
                    *top += 8;
                }
                for ((name, value), class) in pair.names.iter().zip(values).zip(["measured", "reference"]) {
                    let length = number(value) / largest * LONGEST;
                    let baseline = *top + BAR - 4;
                    text(body, LEFT - 10, baseline, "text", "end", name);
                    writeln!(
                        body,
                        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\"/>"
                    )
                    .expect("a string is writable");
                    writeln!(
                        body,
                        "<text class=\"text\" x=\"{:.1}\" y=\"{baseline}\">{value}</text>",
                        f64::from(LEFT) + length + 6.0
                    )
                    .expect("a string is writable");
                    *top += BAR + 2;
                }
            }
        }
    }
}

fn text(body: &mut String, x: u32, y: u32, class: &str, anchor: &str, text: &str) {
    writeln!(body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>")
        .expect("a string is writable");
}
