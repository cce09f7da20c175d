"""In: a RawExample. Out: Segments, its texts with a role each.

- tags: the pair of tags around a thought
- malformed: the malformed shapes of a response, and the action for each
- blank: characters that no reader sees
- repetition: text that repeats itself without end
- code: think tags in code, which are text
- response: a response taken apart into thoughts and the text around them
- example: a RawExample parsed into an Example
- protected: the texts that no step may split
- abbreviations: full stops that end no sentence
- sentences: the ends of sentences in any script
- markers: the words that turn a thought
- steps: a thought split into steps
- chat_template: a Template as the Jinja text of a chat template, for conversations
- exported_template: the chat template of an exported folder
- chat_rendering: messages rendered by a chat template, and cut at the names of tokens
- turn_texts: the texts around messages, for programs without Jinja
- go_template: a Template in Go's template language, for Ollama
- segments: an Example rendered into Segments, with the template around it
"""
