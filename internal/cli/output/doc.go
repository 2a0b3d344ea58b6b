// Package output writes for people and for scripts: tables and fields that fit a terminal, the API's
// answer as JSON, progress that is drawn over on a terminal and a line for each change elsewhere, questions.
//
// A Printer knows where its words go and what was asked for by --json and --quiet. Results go to Out, all else
// (progress, hints, questions) to Err, so that a pipe gets results alone.
//
// What others wrote (names, messages of an API) never reaches a terminal as it came: tables, fields and progress clean
// it, and whoever prints lines of their own calls Clean. Without a terminal nobody is asked: a question's answer is
// then an error that names the flag which answers it.
package output
