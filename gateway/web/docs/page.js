// Renders the description of the API, all of it from this server.

const FORM = "multipart/form-data";

/** A form is the easiest request to try, so it is the first kind of body, and what a request must have comes first in it. */
function formFirst(description) {
  for (const item of Object.values(description.paths)) {
    for (const operation of Object.values(item)) {
      const content = operation.requestBody?.content;
      const form = content?.[FORM];
      if (!form) continue;
      operation.requestBody.content = { [FORM]: form, ...content };
      const { image, phrase, ...others } = form.schema.properties;
      form.schema.properties = { image, ...(phrase && { phrase }), ...others };
    }
  }
  return description;
}

/** What a field of a form holds before anybody has typed: nothing, and of a list of texts one that is empty. */
function emptyField(schema) {
  if (schema.get("type") !== "array") return "";
  return schema.hasIn(["items", "enum"]) ? [] : [""];
}

/**
 * Swagger UI fills every field of a form with a made-up value, and sends fields that are empty. The service refuses
 * both, so fields start empty, and what stays empty is not sent.
 */
const emptyFields = {
  wrapComponents: {
    RequestBody: (Original, system) => (props) => {
      const fn = props.contentType === FORM ? { ...props.fn, getSampleSchema: emptyField } : props.fn;
      return system.React.createElement(Original, { ...props, fn });
    },
    ParameterIncludeEmpty: () => () => null,
    // The query belongs to a picture that is the body itself; with any other body the service refuses it.
    parameterRow: (Original, system) => (props) => {
      const body = system.oas3Selectors.requestContentType(...props.pathMethod);
      const refused = props.param.get("in") === "query" && (body === FORM || body === "application/json");
      return refused ? null : system.React.createElement(Original, props);
    },
  },
  statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (description) => update(formFirst(description)) } } },
};

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  plugins: [() => emptyFields],
  requestSnippetsEnabled: true,
  validatorUrl: null,
});
