//! Expected texts are what transformers 5.24 renders.

use raco::data::{Message, Prompt, Template, Tokenizer};
use serde_json::json;

use super::bytes;

fn tokenizer(template: &str) -> Tokenizer {
    bytes(&json!({ "chat_template": template }))
}

fn conversation() -> Prompt {
    let turns = [("user", " Is <a> & 'b'\\u003c fine?"), ("assistant", " yes é "), ("user", "I say so.")];
    Prompt::Messages(turns.map(|(role, content)| Message::new(role, content)).to_vec())
}

fn prompt(template: &str) -> String {
    let tokenizer = tokenizer(template);
    let ids = tokenizer.prompt_ids(&conversation(), Template::Auto).unwrap();
    tokenizer.decode(&ids).unwrap()
}

/// Prompt and response of one user turn, `hi`, answered by ` ho `.
fn answered(template: &str) -> (String, String) {
    let tokenizer = tokenizer(template);
    let text = |ids: Vec<u32>| tokenizer.decode(&ids).unwrap();
    (
        text(tokenizer.prompt_ids(&"hi".into(), Template::Auto).unwrap()),
        text(tokenizer.response_ids(&"hi".into(), " ho ", Template::Auto).unwrap()),
    )
}

fn refusal(template: &str) -> String {
    tokenizer(template).response_ids(&"hi".into(), "ho", Template::Auto).unwrap_err().what().to_owned()
}

const BLOCKS: &str = "\
{%- set ns = namespace(turns=0) -%}
<s>
{% for message in messages %}
    {% if message.role == 'assistant' %}
    {% generation %}
A: {{ message['content'].strip() | upper }}</s>
    {%- endgeneration %}

    {% else %}
    {%- set ns.turns = ns.turns + 1 %}
{{ ns.turns }} {{ message['role'].title() }}: {{ message | tojson }}
    {% endif %}
    {% if loop.last %}{% break %}{% endif %}
{% endfor %}
{% if tools is defined and tools %}tools{% endif %}
{% if add_generation_prompt %}
A:{% endif %}
";

#[test]
fn blocks_are_trimmed_and_generation_blocks_leave_no_trace() {
    let expected = "<s>\n1 User: {\"role\": \"user\", \"content\": \" Is <a> & 'b'\\\\u003c fine?\"}\nA: YES É</s>\n\
                    2 User: {\"role\": \"user\", \"content\": \"I say so.\"}\nA:";
    assert_eq!(prompt(BLOCKS), expected);
    assert_eq!(
        answered(BLOCKS),
        ("<s>\n1 User: {\"role\": \"user\", \"content\": \"hi\"}\nA:".into(), " HO</s>\n".into())
    );
}

#[test]
fn python_methods_and_values_work() {
    let template = "{% for m in messages %}{{ m.content.split(' ')[-1] }}|{{ m.content.replace('a', 'o') }}|\
        {{ m['content'][::-1] }}|{{ m.content.startswith('I') }}|{{ m.get('name', 'nobody') }}|\
        {{ m.items() | list | length }}|{{ unknown }}|{{ m.content | trim | length }}|{{ '<' ~ loop.index0 ~ '>' }}|\
        {{ m.content.lstrip().rstrip('.') }}\n{% endfor %}";
    let expected = "fine?| Is <o> & 'b'\\u003c fine?|?enif c300u\\'b' & >a< sI |False|nobody|2||24|<0>|\
        Is <a> & 'b'\\u003c fine?\n yes é | é sey |False|nobody|2||5|<1>|yes é \n\
        so.|I soy so.|.os yas I|True|nobody|2||9|<2>|I say so\n";
    assert_eq!(prompt(template), expected.replace("\n yes", "\n| yes"));
}

#[test]
fn json_is_written_as_python_writes_it() {
    let template = "{{ messages[2:] | tojson(indent=2) }}{{ {'a': [1, 2.5, true, none], 'b': \"<é&'>\"} | tojson }}{{ [] | tojson }}";
    let expected = "[\n  {\n    \"role\": \"user\",\n    \"content\": \"I say so.\"\n  }\n]\
                    {\"a\": [1, 2.5, true, null], \"b\": \"<é&'>\"}[]";
    assert_eq!(prompt(template), expected);
}

#[test]
fn keys_beside_role_and_content_reach_the_template() {
    let mut message = Message::new("user", "hi");
    message.more.insert("name".into(), json!("Ada"));
    let tokenizer = tokenizer("{{ messages[0].name }}: {{ messages[0].content }}");
    let ids = tokenizer.prompt_ids(&Prompt::Messages(vec![message]), Template::Auto).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Ada: hi");
}

#[test]
fn every_token_after_the_prompt_belongs_to_the_response() {
    let turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[end]\n{% endfor %}";
    let asked = format!("{turns}{{% if add_generation_prompt %}}[assistant]{{% endif %}}");
    let expected = ("[user]hi[end]\n[assistant]".to_owned(), " ho [end]\n".to_owned());
    assert_eq!(answered(&asked), expected);
    // a template that opens the next answer without being asked
    assert_eq!(answered(&format!("{turns}[assistant]")), expected);
    // the same with a begin-of-text token, here the byte `^`
    let marked = format!("{{{{ bos_token }}}}{turns}[assistant]");
    let tokenizer = bytes(&json!({ "bos_token": "^", "chat_template": marked }));
    let text = |ids: Vec<u32>| tokenizer.decode(&ids).unwrap();
    assert_eq!(text(tokenizer.prompt_ids(&"hi".into(), Template::Auto).unwrap()), format!("^{}", expected.0));
    assert_eq!(text(tokenizer.response_ids(&"hi".into(), " ho ", Template::Auto).unwrap()), expected.1);
}

#[test]
fn a_template_that_changes_the_prompt_is_refused() {
    let template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}\
                    {% if add_generation_prompt %}[assistant]<think>{% endif %}";
    assert_eq!(refusal(template), "the chat template renders the prompt differently once it is answered");
}

#[test]
fn what_a_template_raises_is_told() {
    let raising = "{% if messages | length > 1 %}\n{{ raise_exception('roles must alternate') }}{% endif %}{{ messages[0].content }}";
    assert_eq!(
        refusal(raising),
        "the chat template cannot render the conversation: roles must alternate (line 2 of the template)"
    );
}

#[test]
fn the_clock_of_templates_stands_still() {
    assert_eq!(prompt("{{ strftime_now('%d %b %Y, %A 100%%') }}"), "26 Jul 2024, Friday 100%");
}

#[test]
fn a_template_of_its_own_file_wins_and_a_list_has_a_default() {
    let named = json!({ "chat_template": [{ "name": "tool_use", "template": "no" }, { "name": "default", "template": "yes" }] });
    let tokenizer = bytes(&named);
    let text = |tokenizer: &Tokenizer| {
        tokenizer.decode(&tokenizer.prompt_ids(&"hi".into(), Template::Auto).unwrap()).unwrap()
    };
    assert_eq!(text(&tokenizer), "yes");
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    std::fs::write(dir.path().join("chat_template.jinja"), "file {{ messages[0].content }}\n").unwrap();
    assert_eq!(text(&Tokenizer::load(dir.path()).unwrap()), "file hi");
}
