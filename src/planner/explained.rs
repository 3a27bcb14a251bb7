//! The answer of EXPLAIN: the steps with the plans of those who run them, as lines or as a document.
//!
//! A document is one plan, as tools read it: its nodes are `Custom Scan`s of ours, and PostgreSQL's own plans stand below
//! them as it has written them (`src/backend/commands/explain.c`).

use crate::sql::PlanForm;

/// A step, and the plans of those who run it.
#[derive(Debug)]
pub struct StepPlan {
    /// What is done.
    pub line: String,
    /// Names of nodes with what they answer to EXPLAIN, by lines; no name where the session brings rows together.
    pub plans: Vec<(String, Vec<String>)>,
}

/// The rows of the answer: each line, or the whole document.
pub fn explained(steps: &[StepPlan], form: PlanForm) -> Vec<String> {
    if !matches!(form, PlanForm::Json | PlanForm::Yaml | PlanForm::Xml) {
        return steps.iter().flat_map(lines).collect();
    }
    let mut out = Document { form, text: String::new() };
    out.root(steps);
    vec![out.text]
}

fn lines(step: &StepPlan) -> Vec<String> {
    let mut lines = vec![step.line.clone()];
    let several = step.plans.len() > 1;
    for (node, plan) in &step.plans {
        if several {
            lines.push(format!("    On {node}:"));
        }
        let indent = if several { "      " } else { "    " };
        lines.extend(plan.iter().map(|line| format!("{indent}{line}")));
    }
    lines
}

struct Document {
    form: PlanForm,
    text: String,
}

impl Document {
    fn root(&mut self, steps: &[StepPlan]) {
        let (way, rest) = steps.split_first().map_or(("", steps), |(way, rest)| (&*way.line, rest));
        let way = way.strip_prefix("Way: ").unwrap_or(way);
        let depth = match self.form {
            PlanForm::Json => {
                self.text.push_str("[\n  {\n    \"Plan\": {\n");
                3
            }
            PlanForm::Yaml => {
                self.text.push_str("- Plan: \n");
                2
            }
            _ => {
                let start = "<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n  <Query>\n    <Plan>\n";
                self.text.push_str(start);
                3
            }
        };
        self.properties(depth, &[("Way", way)], false);
        self.plans(depth, rest, Self::step);
        match self.form {
            PlanForm::Json => self.text.push_str("\n    }\n  }\n]"),
            PlanForm::Yaml => {}
            _ => self.text.push_str("\n    </Plan>\n  </Query>\n</explain>"),
        }
    }

    /// A step is one plan node; below it is one for each node of the cluster, if several run it.
    fn step(&mut self, step: &StepPlan, depth: usize) {
        let line = step.line.trim();
        let own = |document: &mut Self, (_, plan): &(String, Vec<String>), depth: usize| {
            document.postgres(plan, depth);
        };
        match step.plans.as_slice() {
            [(node, _)] if !node.is_empty() => {
                self.properties(depth, &[("Step", line), ("Node", node)], true);
                self.plans(depth, &step.plans, own);
            }
            [] | [_] => {
                self.properties(depth, &[("Step", line)], true);
                self.plans(depth, &step.plans, own);
            }
            several => {
                self.properties(depth, &[("Step", line)], true);
                self.plans(depth, several, |document, of_node, depth| {
                    document.properties(depth, &[("Node", &of_node.0)], true);
                    document.plans(depth, std::slice::from_ref(of_node), own);
                });
            }
        }
    }

    /// The properties of a plan node, the last one without a line end.
    fn properties(&mut self, depth: usize, own: &[(&str, &str)], is_child: bool) {
        let mut all = vec![("Node Type", "Custom Scan")];
        all.extend(is_child.then_some(("Parent Relationship", "Member")));
        all.push(("Custom Plan Provider", "foreshard"));
        all.extend(own);
        let bare = [("Parallel Aware", "false"), ("Async Capable", "false")];
        let quoted = all.iter().map(|pair| (pair, true));
        let properties = quoted.chain(bare.iter().map(|pair| (pair, false)));
        for (at, ((name, value), is_text)) in properties.enumerate() {
            let indent = "  ".repeat(depth);
            let text = match self.form {
                PlanForm::Xml => {
                    let tag = name.replace(' ', "-");
                    format!("{indent}<{tag}>{}</{tag}>", escaped_xml(value))
                }
                form => {
                    let value = if is_text { quoted_json(value) } else { (*value).to_owned() };
                    match form {
                        PlanForm::Json => format!("{indent}\"{name}\": {value}"),
                        _ if at == 0 && is_child => {
                            format!("{}- {name}: {value}", "  ".repeat(depth - 1))
                        }
                        _ => format!("{indent}{name}: {value}"),
                    }
                }
            };
            if at > 0 {
                self.text.push_str(if self.form == PlanForm::Json { ",\n" } else { "\n" });
            }
            self.text.push_str(&text);
        }
    }

    /// The group of plans below a node, none if there are none.
    fn plans<T>(&mut self, depth: usize, all: &[T], put: impl Fn(&mut Self, &T, usize)) {
        if all.is_empty() {
            return;
        }
        let indent = "  ".repeat(depth);
        match self.form {
            PlanForm::Json => self.text.push_str(&format!(",\n{indent}\"Plans\": [")),
            PlanForm::Yaml => self.text.push_str(&format!("\n{indent}Plans: ")),
            _ => self.text.push_str(&format!("\n{indent}<Plans>")),
        }
        for (at, one) in all.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match self.form {
                PlanForm::Json => self.text.push_str(&format!("{comma}\n{indent}  {{\n")),
                PlanForm::Yaml => self.text.push('\n'),
                _ => self.text.push_str(&format!("\n{indent}  <Plan>\n")),
            }
            put(self, one, depth + 2);
            match self.form {
                PlanForm::Json => self.text.push_str(&format!("\n{indent}  }}")),
                PlanForm::Yaml => {}
                _ => self.text.push_str(&format!("\n{indent}  </Plan>")),
            }
        }
        match self.form {
            PlanForm::Json => self.text.push_str(&format!("\n{indent}]")),
            PlanForm::Yaml => {}
            _ => self.text.push_str(&format!("\n{indent}</Plans>")),
        }
    }

    /// What PostgreSQL says of the first plan in its answer.
    fn postgres(&mut self, answer: &[String], depth: usize) {
        let lines: Vec<&str> = answer.iter().flat_map(|part| part.split('\n')).collect();
        let (start, own) = match self.form {
            PlanForm::Json => ("    \"Plan\": {", 6),
            PlanForm::Yaml => ("- Plan: ", 4),
            _ => ("    <Plan>", 6),
        };
        let inside = lines.iter().skip_while(|line| **line != start).skip(1);
        let end = |line: &&&str| match self.form {
            PlanForm::Json => !matches!(**line, "    }" | "    },"),
            PlanForm::Yaml => line.starts_with("    "),
            _ => **line != "    </Plan>",
        };
        let inside: Vec<&str> = inside.take_while(end).copied().collect();
        let indent = "  ".repeat(depth);
        for (at, line) in inside.into_iter().enumerate() {
            if at > 0 {
                self.text.push('\n');
            }
            match (self.form, line.get(own..)) {
                (PlanForm::Yaml, Some(rest)) if at == 0 => {
                    self.text.push_str(&format!("{}- {rest}", "  ".repeat(depth - 1)));
                }
                // A value's own lines stay as they are.
                (PlanForm::Xml, _) | (_, None) => self.text.push_str(line),
                (_, Some(rest)) => self.text.push_str(&format!("{indent}{rest}")),
            }
        }
    }
}

/// A string as JSON, and YAML, have it.
fn quoted_json(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn escaped_xml(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(answer: &str) -> Vec<StepPlan> {
        let plan = |node: &str| (node.to_owned(), vec![answer.to_owned()]);
        vec![
            StepPlan { line: "Way: scatter".to_owned(), plans: Vec::new() },
            StepPlan { line: "  On n1: SELECT '<\"'".to_owned(), plans: vec![plan("n1")] },
            StepPlan { line: "  home".to_owned(), plans: Vec::new() },
            StepPlan { line: "  both".to_owned(), plans: vec![plan("n1"), plan("n2")] },
        ]
    }

    #[test]
    fn a_json_document_has_the_plans_of_postgresql_below_ours() {
        let answer = "[\n  {\n    \"Plan\": {\n      \"Node Type\": \"Append\",\n      \"Plans\": [\n        \
            {\n          \"Node Type\": \"Seq Scan\"\n        }\n      ]\n    },\n    \"Planning Time\": 1.0\n  }\n]";
        let document = explained(&steps(answer), PlanForm::Json).concat();
        let read: serde_json::Value = serde_json::from_str(&document).expect(&document);
        let plan = &read[0]["Plan"];
        assert_eq!(plan["Way"], "scatter");
        assert_eq!(plan["Plans"][0]["Step"], "On n1: SELECT '<\"'");
        assert_eq!(plan["Plans"][0]["Plans"][0]["Plans"][0]["Node Type"], "Seq Scan");
        assert_eq!(plan["Plans"][2]["Plans"][1]["Node"], "n2");
        assert_eq!(plan["Plans"][2]["Plans"][1]["Plans"][0]["Node Type"], "Append");
    }

    #[test]
    fn a_yaml_document_is_laid_out_as_postgresql_does_it() {
        let answer = "- Plan: \n    Node Type: \"Append\"\n    Plans: \n      - Node Type: \"Seq Scan\"\n        \
            Alias: \"t\"\n  Planning Time: 1.0";
        let mut few = steps(answer);
        few.truncate(2);
        let document = explained(&few, PlanForm::Yaml).concat();
        let wanted = "- Plan: \n    Node Type: \"Custom Scan\"\n    Custom Plan Provider: \"foreshard\"\n    \
            Way: \"scatter\"\n    Parallel Aware: false\n    Async Capable: false\n    Plans: \n      \
            - Node Type: \"Custom Scan\"\n        Parent Relationship: \"Member\"\n        \
            Custom Plan Provider: \"foreshard\"\n        Step: \"On n1: SELECT '<\\\"'\"\n        Node: \"n1\"\n        \
            Parallel Aware: false\n        Async Capable: false\n        Plans: \n          \
            - Node Type: \"Append\"\n            Plans: \n              - Node Type: \"Seq Scan\"\n                \
            Alias: \"t\"";
        assert_eq!(document, wanted);
    }

    #[test]
    fn an_xml_document_closes_what_it_opens() {
        let answer = "<explain xmlns=\"x\">\n  <Query>\n    <Plan>\n      <Node-Type>Append</Node-Type>\n    \
            </Plan>\n    <Planning-Time>1</Planning-Time>\n  </Query>\n</explain>";
        let document = explained(&steps(answer), PlanForm::Xml).concat();
        for tag in ["explain", "Query", "Plan", "Plans", "Node-Type", "Step"] {
            let count = |what: String| document.matches(&what).count();
            let opened = count(format!("<{tag}>")) + count(format!("<{tag} "));
            assert_eq!(opened, count(format!("</{tag}>")), "{tag}: {document}");
        }
        assert_eq!(document.matches("<Node-Type>Append<").count(), 3, "{document}");
        assert!(document.contains("<Step>On n1: SELECT '&lt;\"'</Step>"), "{document}");
        assert!(!document.contains("Planning-Time"), "{document}");
    }
}
