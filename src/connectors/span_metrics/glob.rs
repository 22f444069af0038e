//! Patterns for attribute names, with `.` as separator: `*` stays within a part, `**` does not, `?` is one character of a part, `[a-z]`
//! and `[!a-z]` are sets, `{a,b}` alternatives, `\` takes the next character as it is.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    One,
    /// `*`
    Some,
    /// `**`
    Any,
    Set {
        not: bool,
        ranges: Vec<(char, char)>,
    },
    Either(Vec<Glob>),
}

/// Longest pattern, in characters; matching is quadratic in the worst case.
const LENGTH_MAX: usize = 256;

impl Glob {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().count() > LENGTH_MAX {
            return Err("it is longer than 256 characters");
        }
        let mut letters = text.chars().peekable();
        let glob = Self::parse_until(&mut letters, 0)?;
        match letters.next() {
            None => Ok(glob),
            Some(_) => Err("`}` without `{`"),
        }
    }

    /// Up to the end, or inside braces up to `,` or `}`.
    fn parse_until(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, depth: usize) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        while let Some(&letter) = letters.peek() {
            if letter == '}' || (depth > 0 && letter == ',') {
                break;
            }
            letters.next();
            parts.push(match letter {
                '\\' => Part::Char(letters.next().ok_or("it ends with `\\`")?),
                '?' => Part::One,
                '*' => {
                    let mut part = Part::Some;
                    while letters.next_if_eq(&'*').is_some() {
                        part = Part::Any;
                    }
                    part
                }
                '[' => parse_set(letters)?,
                '{' => {
                    if depth >= 4 {
                        return Err("braces nest too deep");
                    }
                    let mut choices = Vec::new();
                    loop {
                        choices.push(Self::parse_until(letters, depth + 1)?);
                        match letters.next() {
                            Some(',') => {}
                            Some('}') => break,
                            _ => return Err("`{` without `}`"),
                        }
                    }
                    Part::Either(choices)
                }
                other => Part::Char(other),
            });
        }
        Ok(Self { parts })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let letters: Vec<char> = name.chars().collect();
        ends(&self.parts, &letters, &[0]).contains(&letters.len())
    }
}

/// Where the parts may end if they begin at any of `starts`; rising, without doubles. Never more than one place a letter, so no pattern
/// takes exponential time.
fn ends(parts: &[Part], letters: &[char], starts: &[usize]) -> Vec<usize> {
    let mut places = starts.to_vec();
    for part in parts {
        let mut next = Vec::new();
        // What a star reached from an earlier place reaches as far as the star at that place does.
        let mut reached = 0;
        for &place in &places {
            let here = letters.get(place).copied();
            match part {
                Part::Char(letter) => next.extend((here == Some(*letter)).then_some(place + 1)),
                Part::One => next.extend(here.is_some_and(|c| c != '.').then_some(place + 1)),
                Part::Set { not, ranges } => {
                    let fits = here.is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not);
                    next.extend(fits.then_some(place + 1));
                }
                Part::Some | Part::Any if place < reached => {}
                Part::Some | Part::Any => {
                    let free = letters.iter().skip(place).take_while(|c| *part == Part::Any || **c != '.').count();
                    next.extend(place..=place + free);
                    reached = place + free + 1;
                }
                Part::Either(choices) => {
                    for choice in choices {
                        next.extend(ends(&choice.parts, letters, &[place]));
                    }
                }
            }
        }
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    places
}

fn parse_set(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, &'static str> {
    const OPEN: &str = "`[` without `]`";
    let not = letters.next_if_eq(&'!').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match letters.next().ok_or(OPEN)? {
            ']' if ranges.is_empty() => return Err("an empty set"),
            ']' => return Ok(Part::Set { not, ranges }),
            '\\' => letters.next().ok_or(OPEN)?,
            letter => letter,
        };
        let high = if letters.next_if_eq(&'-').is_some() { letters.next().ok_or(OPEN)? } else { low };
        if low > high {
            return Err("a range that runs backwards");
        }
        ranges.push((low, high));
    }
}
