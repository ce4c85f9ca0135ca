//! Standard output and standard error as one terminal: what is redrawn in place at its end, and the lines above that.
//!
//! A terminal may stand still for as long as it likes (Ctrl-S, the scrollback of a multiplexer), and whoever writes to it waits. So one
//! thread writes, and everybody else leaves with the [`Screen`] what is to be written, which takes no longer than a lock that nobody
//! waits under. Lines wait up to [`MOST_BYTES`], those that are too many are counted; of drawings only the last is of interest.

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Lines wait for the terminal up to this, in bytes.
const MOST_BYTES: usize = 256 << 10;

/// Which of the two a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Error,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Left {
    /// Whole lines.
    lines: Vec<(Stream, Vec<u8>)>,
    bytes: usize,
    /// How many lines there was no room for.
    lost: u64,
    /// Whole lines that fit into the size.
    drawing: Option<(String, Size)>,
}

impl Left {
    fn has_lines(&self) -> bool {
        !self.lines.is_empty() || self.lost > 0
    }

    fn add(&mut self, stream: Stream, line: &[u8]) {
        // Nothing goes between lines that were lost.
        if self.lost > 0 || self.bytes + line.len() > MOST_BYTES {
            self.lost += 1;
            return;
        }
        self.bytes += line.len();
        self.lines.push((stream, line.to_owned()));
    }
}

#[derive(Debug, Default)]
struct State {
    left: Left,
    /// Lines that were taken are not written yet.
    writing_lines: bool,
    /// Standard output takes nothing any more.
    gone: bool,
}

/// Where everybody leaves what is to be written to the terminal.
#[derive(Debug, Default)]
pub struct Screen {
    state: Mutex<State>,
    /// Something was left, or lines were written.
    changed: Condvar,
}

impl Screen {
    /// Leaves whole lines for standard output.
    pub fn print(&self, lines: &str) {
        self.leave(|left| left.add(Stream::Out, lines.as_bytes()));
    }

    /// Leaves whole lines for standard error.
    pub fn log(&self, lines: &[u8]) {
        self.leave(|left| left.add(Stream::Error, lines));
    }

    /// Leaves a drawing, whole lines that fit into `size`, which takes the place of the last one.
    pub fn draw(&self, text: String, size: Size) {
        self.leave(|left| left.drawing = Some((text, size)));
    }

    /// Whether drawings can still be seen.
    pub fn is_seen(&self) -> bool {
        !self.state.lock().gone
    }

    fn leave(&self, add: impl FnOnce(&mut Left)) {
        add(&mut self.state.lock().left);
        self.changed.notify_all();
    }

    /// Writes what is left here, for ever: this is what the thread does that may have to wait for the terminal.
    pub fn write(&self) {
        let mut terminal = Terminal::default();
        let mut state = self.state.lock();
        loop {
            while !state.left.has_lines() && state.left.drawing.is_none() {
                self.changed.wait(&mut state);
            }
            let taken = std::mem::take(&mut state.left);
            state.writing_lines = taken.has_lines();
            drop(state);
            let written = terminal.write(&taken, &mut io::stdout(), &mut io::stderr());
            state = self.state.lock();
            // A terminal that went away is no reason to stop serving.
            state.gone |= written.is_err();
            state.writing_lines = false;
            self.changed.notify_all();
        }
    }

    /// Waits until all lines that were left are written, if that comes to pass `within`.
    pub fn finish(&self, within: Duration) {
        let until = Instant::now() + within;
        let mut state = self.state.lock();
        while state.left.has_lines() || state.writing_lines {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

/// What the terminal shows.
#[derive(Default)]
struct Terminal {
    /// Lines of the last drawing, which stands at the end.
    drawn: usize,
    size: Option<Size>,
}

impl Terminal {
    /// Writes lines where the drawing begins, which comes again below them with the next one.
    ///
    /// # Errors
    /// Those of `out`; what `error` does not take is lost.
    fn write(&mut self, left: &Left, out: &mut impl Write, error: &mut impl Write) -> io::Result<()> {
        let mut outcome = Ok(());
        if left.has_lines() {
            outcome = out.write_all(erase(self.drawn).as_bytes()).and_then(|()| out.flush());
            self.drawn = 0;
        }
        for (stream, line) in &left.lines {
            match stream {
                Stream::Out => outcome = outcome.and_then(|()| out.write_all(line)).and_then(|()| out.flush()),
                Stream::Error => _ = error.write_all(line),
            }
        }
        if left.lost > 0 {
            let lost = format!("{} log lines were left out: the terminal did not take them\n", left.lost);
            let _ = error.write_all(lost.as_bytes());
        }
        outcome?;
        match &left.drawing {
            Some((text, size)) => self.draw(text, *size, out),
            None => Ok(()),
        }
    }

    fn draw(&mut self, text: &str, size: Size, out: &mut impl Write) -> io::Result<()> {
        let begin = if self.size.is_some_and(|before| before != size) {
            // The terminal broke the lines anew, nobody knows where: begin with an empty one.
            "\x1b[2J\x1b[H".to_owned()
        } else {
            erase(self.drawn)
        };
        *self = Terminal { drawn: text.lines().count(), size: Some(size) };
        out.write_all((begin + text).as_bytes())?;
        out.flush()
    }
}

/// Back to where a drawing of so many lines began, and nothing from there on.
fn erase(lines: usize) -> String {
    if lines > 0 { format!("\x1b[{lines}A\x1b[0J") } else { String::new() }
}

/// Standard error by way of a [`Screen`]. Takes a whole line at a time.
pub struct LogLines(pub Arc<Screen>);

impl Write for LogLines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.log(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 40, rows: 10 };

    /// What standard output and standard error get of all that is left.
    fn written(terminal: &mut Terminal, screen: &Screen) -> (String, String) {
        let left = std::mem::take(&mut screen.state.lock().left);
        let (mut out, mut error) = (Vec::new(), Vec::new());
        terminal.write(&left, &mut out, &mut error).expect("a vector takes everything");
        (String::from_utf8(out).expect("text"), String::from_utf8(error).expect("text"))
    }

    fn drawn(terminal: &mut Terminal, text: &str, size: Size) -> String {
        let screen = Screen::default();
        screen.draw(text.to_owned(), size);
        written(terminal, &screen).0
    }

    #[test]
    fn a_drawing_replaces_the_last_one() {
        let mut terminal = Terminal::default();
        assert_eq!(drawn(&mut terminal, "a\nb\n", SIZE), "a\nb\n");
        assert_eq!(drawn(&mut terminal, "c\n", SIZE), "\x1b[2A\x1b[0Jc\n");
        assert_eq!(drawn(&mut terminal, "d\n", SIZE), "\x1b[1A\x1b[0Jd\n");
    }

    #[test]
    fn lines_take_the_place_of_the_drawing_once() {
        let mut terminal = Terminal::default();
        drawn(&mut terminal, "a\nb\n", SIZE);
        let screen = Screen::default();
        screen.log(b"WARN one\n");
        screen.log(b"WARN two\n");
        let expected = ("\x1b[2A\x1b[0J".to_owned(), "WARN one\nWARN two\n".to_owned());
        assert_eq!(written(&mut terminal, &screen), expected);
        screen.print("ready\n");
        assert_eq!(written(&mut terminal, &screen), ("ready\n".to_owned(), String::new()));
        assert_eq!(drawn(&mut terminal, "c\n", SIZE), "c\n", "nothing of the lines is erased");
    }

    #[test]
    fn a_terminal_of_another_size_begins_anew() {
        let mut terminal = Terminal::default();
        drawn(&mut terminal, "a\nb\n", SIZE);
        assert_eq!(drawn(&mut terminal, "c\n", Size { columns: 20, ..SIZE }), "\x1b[2J\x1b[Hc\n");
    }

    #[test]
    fn a_terminal_that_stands_still_is_not_waited_for() {
        let screen = Screen::default();
        let line = vec![b'x'; MOST_BYTES / 2];
        for _ in 0..5 {
            screen.log(&line);
        }
        screen.log(b"short\n");
        screen.draw("old\n".to_owned(), SIZE);
        screen.draw("new\n".to_owned(), SIZE);
        // Nobody writes: this ends nevertheless.
        screen.finish(Duration::from_millis(1));
        let (out, error) = written(&mut Terminal::default(), &screen);
        assert_eq!(out, "new\n");
        assert!(error.ends_with("x4 log lines were left out: the terminal did not take them\n"));
        screen.log(b"again\n");
        assert_eq!(written(&mut Terminal::default(), &screen).1, "again\n", "there is room again");
    }

    #[test]
    fn a_terminal_that_went_away_still_gets_its_log_lines() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let screen = Screen::default();
        screen.print("ready\n");
        screen.log(b"WARN one\n");
        screen.draw("a\n".to_owned(), SIZE);
        let mut error = Vec::new();
        let outcome = Terminal::default().write(&screen.state.lock().left, &mut Gone, &mut error);
        assert!(outcome.is_err());
        assert_eq!(error, b"WARN one\n");
    }
}
