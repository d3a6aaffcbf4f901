//! What the document says of one call, and how that is written.

use serde_json::{Map, Value, json};

/// A call and the paths that it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// As clients that are generated name it; those of further paths add what their path names.
    pub id: &'static str,
    pub verb: &'static str,
    /// The first is the plainest.
    pub paths: &'static [&'static str],
    pub tag: &'static str,
    pub summary: &'static str,
    pub detail: &'static str,
    /// Of the query and the headers, by their names among the components.
    pub parameters: &'static [&'static str],
    pub body: Option<Body>,
    pub answers: &'static [Answer],
    /// Statuses with the body that every error has.
    pub refusals: &'static [u16],
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub media: &'static [Media],
    pub is_required: bool,
    /// A component that goes with the first media type.
    pub example: Option<&'static str>,
}

/// A content type, and its schema among the components.
#[derive(Clone, Copy, Debug)]
pub(super) struct Media(pub &'static str, pub &'static str);

#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub says: &'static str,
    pub media: &'static [Media],
    pub headers: &'static [&'static str],
}

impl Operation {
    /// A GET that answers with one schema in JSON.
    pub(super) const fn get(id: &'static str, paths: &'static [&'static str], answers: &'static [Answer]) -> Self {
        let (tag, summary, detail) = ("", "", "");
        let (parameters, body, refusals): (&[&str], _, &[u16]) = (&[], None, NO_REFUSALS);
        Self { id, verb: "get", paths, tag, summary, detail, parameters, body, answers, refusals }
    }

    pub(super) const fn post(id: &'static str, paths: &'static [&'static str], answers: &'static [Answer]) -> Self {
        Self { verb: "post", ..Self::get(id, paths, answers) }
    }

    pub(super) const fn says(self, tag: &'static str, summary: &'static str, detail: &'static str) -> Self {
        Self { tag, summary, detail, ..self }
    }

    pub(super) const fn takes(self, body: Body) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(super) const fn with(self, parameters: &'static [&'static str]) -> Self {
        Self { parameters, ..self }
    }

    pub(super) const fn refuses(self, refusals: &'static [u16]) -> Self {
        Self { refusals, ..self }
    }

    /// The operation as it stands under one of its paths, `shown` with or without names in its braces. Every call may be
    /// refused with `also` besides.
    pub(super) fn written(&self, path: &str, shown: &str, also: &[u16]) -> Value {
        let named: Vec<&str> = placeholders(shown).collect();
        let parameters = named.iter().chain(self.parameters).map(|name| reference("parameters", name));
        let mut responses: Map<String, Value> = self.answers.iter().map(Answer::written).collect();
        for status in self.refusals.iter().chain(also).map(u16::to_string) {
            responses.entry(status.clone()).or_insert_with(|| reference("responses", &status));
        }
        let mut written = json!({
            "operationId": self.id_of(path),
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters.collect::<Vec<_>>(),
            "responses": responses,
        });
        if !self.detail.is_empty() {
            written["description"] = self.detail.into();
        }
        if let Some(body) = &self.body {
            written["requestBody"] = body.written();
        }
        written
    }

    fn id_of(&self, path: &str) -> String {
        let further = [("{version}", "OfVersion"), ("{label}", "OfLabel"), ("{repository}", "OfRepository")];
        let of = further.iter().find(|(name, _)| path.contains(name)).map_or("", |(_, of)| of);
        // Other servers' paths of the same call.
        let alias = if path.contains("/docs/") { "Dataplane" } else { "" };
        format!("{}{of}{alias}", self.id)
    }
}

impl Body {
    fn written(&self) -> Value {
        let mut content = content(self.media);
        if let (Some(example), Some(Media(first, _))) = (self.example, self.media.first()) {
            content[*first]["examples"] = json!({ "example": reference("examples", example) });
        }
        json!({ "required": self.is_required, "content": content })
    }
}

impl Answer {
    fn written(&self) -> (String, Value) {
        let mut written = json!({ "description": self.says });
        if !self.media.is_empty() {
            written["content"] = content(self.media);
        }
        if !self.headers.is_empty() {
            written["headers"] =
                self.headers.iter().map(|name| ((*name).to_owned(), reference("headers", name))).collect();
        }
        (self.status.to_string(), written)
    }
}

/// The names in braces of a path.
pub(super) fn placeholders(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
}

pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn content(media: &[Media]) -> Value {
    let written =
        media.iter().map(|Media(kind, schema)| ((*kind).to_owned(), json!({ "schema": reference("schemas", schema) })));
    written.collect()
}

const NO_REFUSALS: &[u16] = &[];
