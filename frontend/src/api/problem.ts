/** What the server could not do, in its own words. */
export class ApiProblem extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly accepted: string,
    readonly nextStep: string,
  ) {
    super(message);
  }
}

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of an answer, or its problem as an error. */
export async function dataOf<T>(answer: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await answer.catch(() => {
    throw new ApiProblem(0, 'The server cannot be reached', '', 'See whether quantscope serve still runs.');
  });
  if (response.ok) return data as T;
  const { message, accepted, next_step: nextStep } = (error ?? {}) as Record<string, string | undefined>;
  throw new ApiProblem(
    response.status,
    message ?? `The server answered ${response.status}`,
    accepted ?? '',
    nextStep ?? '',
  );
}
