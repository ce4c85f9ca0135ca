//! Tests of the task with a log in memory.
