use super::template::{Target, render};
use super::{differing, folder};

#[test]
fn the_files_in_the_repository_are_what_would_be_written() {
    let differing = differing(&folder()).unwrap();
    let paths: Vec<_> = differing.keys().collect();
    assert!(paths.is_empty(), "run `cargo lab manifests`: {paths:?}");
}

#[test]
fn lines_about_an_empty_value_are_left_out_of_the_plain_manifest_only() {
    let source = "a\n  #if vxlan\n  - b: ${vxlan}\n  #end\n- ${log}\n";
    assert_eq!(render(source, Target::Plain).unwrap(), "a\n- info\n");
    assert_eq!(
        render(source, Target::Chart).unwrap(),
        "a\n  {{- if .Values.vxlan }}\n  - b: {{ .Values.vxlan | quote }}\n  {{- end }}\n- {{ .Values.log | quote }}\n"
    );
}

#[test]
fn a_template_with_a_mistake_is_refused_with_its_line() {
    for (source, message) in [
        ("a\n${nothing}\n", "line 2"),
        ("#if vxlan\n", "#if vxlan without #end"),
        ("#end\n", "line 1"),
        ("${log\n", "line 1"),
    ] {
        let error = format!("{:#}", render(source, Target::Plain).unwrap_err());
        assert!(error.contains(message), "{error}");
    }
}
