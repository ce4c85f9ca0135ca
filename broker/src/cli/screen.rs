//! Standard output and standard error as one terminal: what is redrawn in place at its end, and the log lines above that.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;

/// How much a terminal shows, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// Terminals that do not say their size are taken for one of these.
const USUAL: Size = Size { columns: 80, rows: 24 };

impl Size {
    /// The size of the terminal behind standard output.
    pub fn of_stdout() -> Size {
        let Ok(said) = rustix::termios::tcgetwinsize(io::stdout()) else { return USUAL };
        match (usize::from(said.ws_col), usize::from(said.ws_row)) {
            (0, _) | (_, 0) => USUAL,
            (columns, rows) => Size { columns, rows },
        }
    }
}

/// What was drawn last.
#[derive(Default)]
struct Drawn {
    lines: usize,
    size: Option<Size>,
}

/// A drawing at the end of a terminal.
#[derive(Default)]
pub struct Screen {
    drawn: Mutex<Drawn>,
}

impl Screen {
    /// Draws `text`, whole lines that fit into `size`, over the last drawing.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&self, text: &str, size: Size, out: &mut impl Write) -> io::Result<()> {
        let mut drawn = self.drawn.lock();
        if drawn.size.is_some_and(|before| before != size) {
            // The terminal broke the lines anew, nobody knows where: begin with an empty one.
            out.write_all(b"\x1b[2J\x1b[H")?;
            drawn.lines = 0;
        }
        out.write_all(erase(drawn.lines).as_bytes())?;
        out.write_all(text.as_bytes())?;
        out.flush()?;
        *drawn = Drawn { lines: text.lines().count(), size: Some(size) };
        Ok(())
    }

    /// Writes a log line to `log` where the drawing begins, which comes again below it with the next [`Screen::draw`].
    fn log(&self, line: &[u8], out: &mut impl Write, log: &mut impl Write) -> io::Result<()> {
        let mut drawn = self.drawn.lock();
        if drawn.lines > 0 {
            out.write_all(erase(drawn.lines).as_bytes())?;
            out.flush()?;
            drawn.lines = 0;
        }
        log.write_all(line)
    }
}

/// Back to where a drawing of so many lines began, and nothing from there on.
fn erase(lines: usize) -> String {
    if lines > 0 { format!("\x1b[{lines}A\x1b[0J") } else { String::new() }
}

/// Standard error above a [`Screen`] on standard output. Takes a whole line at a time.
pub struct LogLines(pub Arc<Screen>);

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.log(line, &mut io::stdout().lock(), &mut io::stderr().lock())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 40, rows: 10 };

    fn drawn(screen: &Screen, text: &str, size: Size) -> String {
        let mut out = Vec::new();
        screen.draw(text, size, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_drawing_replaces_the_last_one() {
        let screen = Screen::default();
        assert_eq!(drawn(&screen, "a\nb\n", SIZE), "a\nb\n");
        assert_eq!(drawn(&screen, "c\n", SIZE), "\x1b[2A\x1b[0Jc\n");
        assert_eq!(drawn(&screen, "d\n", SIZE), "\x1b[1A\x1b[0Jd\n");
    }

    #[test]
    fn log_lines_take_the_place_of_the_drawing_once() {
        let screen = Screen::default();
        drawn(&screen, "a\nb\n", SIZE);
        let (mut out, mut log) = (Vec::new(), Vec::new());
        screen.log(b"WARN one\n", &mut out, &mut log).expect("written");
        screen.log(b"WARN two\n", &mut out, &mut log).expect("written");
        assert_eq!((out.as_slice(), log.as_slice()), (&b"\x1b[2A\x1b[0J"[..], &b"WARN one\nWARN two\n"[..]));
        assert_eq!(drawn(&screen, "c\n", SIZE), "c\n", "nothing of the lines is erased");
    }

    #[test]
    fn a_terminal_of_another_size_begins_anew() {
        let screen = Screen::default();
        drawn(&screen, "a\nb\n", SIZE);
        assert_eq!(drawn(&screen, "c\n", Size { columns: 20, ..SIZE }), "\x1b[2J\x1b[Hc\n");
    }
}
