// How the generated types are used; `make api-types` checks it.
import type { components, paths } from "../../bin/refersam.js";

type SegmentRequest = components["schemas"]["SegmentRequest"];
type Answer = paths["/v1/segment"]["post"]["responses"][200]["content"]["application/json"];
type Problem = components["schemas"]["Problem"];

/** The pixels that each phrase means, counted, with the phrase as the service gives it back. */
export async function areas(service: string, data: string, ...phrases: string[]): Promise<[string, number][]> {
  const request: SegmentRequest = { image: { data }, prompts: phrases.map((text) => ({ text })) };
  const response = await fetch(`${service}/v1/segment`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(request),
  });
  if (!response.ok) {
    const problem = (await response.json()) as Problem;
    throw new Error(`${problem.code}: ${problem.detail}`);
  }
  const answer = (await response.json()) as Answer;
  return answer.results?.map((result) => [result.phrase, result.area]) ?? [];
}
