//! The manual page: one page for all commands, so that it can be read and searched as a whole.

use crate::exit::Exit;
use clap::CommandFactory;
use clap_mangen::Man;

/// The page in roff.
pub(crate) fn page() -> String {
    let mut command = crate::cli::Cli::command();
    command.build();
    let mut page = top(&Man::new(command.clone()));
    for sub in command.get_subcommands() {
        section(sub, &mut page);
        for below in sub.get_subcommands() {
            section(below, &mut page);
        }
    }
    page.push_str(&exit_status());
    page
}

fn section(command: &clap::Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let man = Man::new(command.clone());
    let mut body = Vec::new();
    let rendered = man
        .render_synopsis_section(&mut body)
        .and_then(|()| man.render_description_section(&mut body))
        .and_then(|()| man.render_options_section(&mut body))
        .and_then(|()| man.render_extra_section(&mut body));
    rendered.expect("a vector takes everything");
    page.push_str(&format!(".SH \"{}\"\n", name.to_uppercase()));
    // A command's parts are subsections of its section.
    page.push_str(
        &String::from_utf8_lossy(&body)
            .replace("\n.SH EXTRA", "\n.SH EXAMPLES")
            .replace("\n.SH ", "\n.SS ")
            .replacen(".SH SYNOPSIS", ".SS SYNOPSIS", 1),
    );
}

/// The page's head: name, synopsis, description, options.
fn top(man: &Man) -> String {
    let mut page = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page));
    rendered.expect("a vector takes everything");
    format!(".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n{}", String::from_utf8_lossy(&page))
}

/// The table of exit codes.
fn exit_status() -> String {
    let mut section = String::from(".SH \"EXIT STATUS\"\n");
    for (exit, meaning) in Exit::ALL {
        section.push_str(&format!(".TP\n{}\n{}\n", exit.code(), meaning.replace('-', "\\-")));
    }
    section
}
