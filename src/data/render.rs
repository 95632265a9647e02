//! Prompts and responses → the ids that a model is trained on.

use super::row::{Message, Prompt};
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// How a prompt becomes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Template {
    /// By the tokenizer's chat template, a text prompt as one user turn; raw where there is no template.
    #[default]
    Auto,
    /// Raw: the text as it is.
    None,
}

impl std::str::FromStr for Template {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Template::Auto),
            "none" => Ok(Template::None),
            _ => Err(Error::new(format!("template must be `auto` or `none`, found `{name}`"))
                .help("`auto` is the tokenizer's chat template, `none` the raw text")),
        }
    }
}

impl Tokenizer {
    /// How prompts are rendered, in words.
    pub fn rendering(&self, template: Template) -> &'static str {
        match (template, &self.template) {
            (Template::None, _) => "raw text (template: none)",
            (Template::Auto, None) => "raw text (the tokenizer has no chat template)",
            (Template::Auto, Some(_)) => "chat template of the tokenizer, a text prompt as one user turn",
        }
    }

    /// The prompt as a model sees it before it answers, as text.
    ///
    /// # Errors
    /// As [`Tokenizer::prompt_ids`].
    pub fn prompt_text(&self, prompt: &Prompt, template: Template) -> Result<String> {
        Ok(self.render(prompt, template)?.text)
    }

    /// Ids of the prompt as a model sees it before it answers: the conversation rendered with the header of
    /// the answer to come; raw, the text with what the tokenizer puts before every text.
    ///
    /// # Errors
    /// A conversation that the template refuses, or messages without a template.
    pub fn prompt_ids(&self, prompt: &Prompt, template: Template) -> Result<Vec<u32>> {
        Ok(self.render(prompt, template)?.all_ids())
    }

    /// Ids of a response to a prompt: every token that the template renders after the prompt, nothing else;
    /// raw, the text and the end token.
    ///
    /// The ids follow those of [`Tokenizer::prompt_ids`]: the whole conversation is tokenised at once where
    /// that leaves the prompt's ids as they are, else prompt and rest are tokenised apart.
    ///
    /// # Errors
    /// As [`Tokenizer::prompt_ids`], and a template that renders the prompt differently once it is answered.
    pub fn response_ids(&self, prompt: &Prompt, response: &str, template: Template) -> Result<Vec<u32>> {
        self.answer_ids(prompt, &self.render(prompt, template)?, response, template)
    }

    /// [`Tokenizer::prompt_ids`] and [`Tokenizer::response_ids`] of all responses to one prompt.
    pub(super) fn example_ids(
        &self,
        prompt: &Prompt,
        responses: &[String],
        template: Template,
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let before = self.render(prompt, template)?;
        let answer = |response: &String| self.answer_ids(prompt, &before, response, template);
        let answers = responses.iter().map(answer).collect::<Result<_>>()?;
        Ok((before.all_ids(), answers))
    }

    fn chat(&self, template: Template) -> Option<&ChatTemplate> {
        self.template.as_ref().filter(|_| template == Template::Auto)
    }

    fn render(&self, prompt: &Prompt, template: Template) -> Result<Rendered> {
        if let Some(chat) = self.chat(template) {
            let text = chat.render(&turns(prompt), true)?;
            return Ok(Rendered { ids: self.encode(&text)?, text, lead: Vec::new() });
        }
        let text = match prompt {
            Prompt::Text(text) => text,
            Prompt::Messages(messages) => match messages.as_slice() {
                [only] if only.role == "user" => &only.content,
                _ => {
                    return Err(Error::new("a conversation needs a chat template")
                        .help("give the prompt as text, or use a model folder with a chat template"));
                }
            },
        };
        let ids = self.encode(text)?;
        let whole = self.inner.encode_fast(text.as_str(), true);
        let whole = whole.map_err(|e| Error::new(format!("the text cannot be tokenised: {e}")))?;
        let lead = whole.get_ids().windows(ids.len().max(1)).position(|window| window == ids).unwrap_or(0);
        Ok(Rendered { text: text.clone(), lead: whole.get_ids()[..lead].to_vec(), ids })
    }

    fn answer_ids(
        &self,
        prompt: &Prompt,
        before: &Rendered,
        response: &str,
        template: Template,
    ) -> Result<Vec<u32>> {
        let Some(chat) = self.chat(template) else {
            let mut ids = self.continue_ids(before, response)?;
            if let Some(end) = self.end_token().filter(|end| ids.last() != Some(end)) {
                ids.push(end);
            }
            return Ok(ids);
        };
        let mut messages = turns(prompt);
        messages.push(Message::new("assistant", response));
        let whole = chat.render(&messages, false)?;
        match whole.strip_prefix(&before.text) {
            Some(rest) => self.continue_ids(before, rest),
            None => Err(Error::new("the chat template renders the prompt differently once it is answered")
                .help("give `prompt_ids`, `chosen_ids` and `rejected_ids`, or use `template: \"none\"`")),
        }
    }

    fn continue_ids(&self, before: &Rendered, rest: &str) -> Result<Vec<u32>> {
        let joint = self.encode(&[&before.text, rest].concat()).ok();
        let tail = joint.as_deref().and_then(|ids| ids.strip_prefix(before.ids.as_slice()));
        tail.map_or_else(|| self.encode(rest), |tail| Ok(tail.to_vec()))
    }
}

/// A prompt as text and as ids.
struct Rendered {
    text: String,
    /// What the tokenizer puts before every raw text: a begin-of-text token, mostly.
    lead: Vec<u32>,
    ids: Vec<u32>,
}

impl Rendered {
    fn all_ids(&self) -> Vec<u32> {
        [self.lead.as_slice(), &self.ids].concat()
    }
}

fn turns(prompt: &Prompt) -> Vec<Message> {
    match prompt {
        Prompt::Text(text) => vec![Message::new("user", text.as_str())],
        Prompt::Messages(messages) => messages.clone(),
    }
}
