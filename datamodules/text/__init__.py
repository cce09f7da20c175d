"""In: a RawExample. Out: Segments, its texts with a role each.

- tags: the pair of tags around a thought
- malformed: the malformed shapes of a response, and the action for each
- blank: characters that no reader sees
- repetition: text that repeats itself without end
- code: think tags in code, which are text
- response: a response taken apart into thoughts and the text around them
- example: a RawExample parsed into an Example
- steps: a thought split into steps
- segments: an Example rendered into Segments, with the template around it
"""
