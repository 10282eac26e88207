//! What the environment variables say. Each value in a process of its own, since the choice is made
//! once.

use sorix_kernels::dispatch;
use sorix_testing::this_program;

const BACKEND_VARIABLE: &str = "SORIX_BACKEND";
const STREAMING_VARIABLE: &str = "SORIX_STREAMING_ABOVE";

const CHILD: &str = "SORIX_TEST_ENVIRONMENT";

/// What [`the_child`] prints, with these variables.
fn with(variables: &[(&str, &str)]) -> String {
    let mut child = this_program();
    child
        .args(["--exact", "the_child", "--nocapture"])
        .env_remove(BACKEND_VARIABLE)
        .env_remove(STREAMING_VARIABLE)
        .env(CHILD, "1")
        .envs(variables.iter().copied());
    String::from_utf8(child.output().unwrap().stdout).unwrap()
}

#[test]
fn the_child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let name = || dispatch::active().map(|backend| backend.name().to_owned());
    println!("backend {:?}", name().map_err(|error| error.to_string()));
    println!(
        "streaming {:?}",
        sorix_kernels::internal::streaming_above().map_err(|error| error.to_string())
    );
    if name().is_err() {
        dispatch::set_active(dispatch::by_name("portable").unwrap()).unwrap();
        println!("then {:?}", name().unwrap());
    }
}

#[test]
fn an_empty_variable_is_not_set() {
    let best = format!("backend Ok({:?})", dispatch::best().name());
    for variables in [&[][..], &[(BACKEND_VARIABLE, ""), (STREAMING_VARIABLE, "")]] {
        let said = with(variables);
        assert!(said.contains(&best), "{said}");
        assert!(said.contains("streaming Ok(None)"), "{said}");
    }
    let said = with(&[(BACKEND_VARIABLE, "reference"), (STREAMING_VARIABLE, "7")]);
    assert!(said.contains(r#"backend Ok("reference")"#), "{said}");
    assert!(said.contains("streaming Ok(Some(7))"), "{said}");
}

#[test]
fn an_error_names_the_variable_and_is_not_for_ever() {
    let said = with(&[(BACKEND_VARIABLE, "bad"), (STREAMING_VARIABLE, "1 MiB")]);
    for expected in [
        r#"backend Err("environment variable SORIX_BACKEND: unknown backend \"bad\"; this machine has: "#,
        r#"streaming Err("environment variable SORIX_STREAMING_ABOVE: expected a number of bytes"#,
        r#"then "portable""#,
    ] {
        assert!(said.contains(expected), "{said}");
    }
}
