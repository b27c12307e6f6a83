import type { components } from './schema';

type Schemas = components['schemas'];

export type About = Schemas['About'];
export type Accuracy = Schemas['Accuracy'];
export type Budget = Schemas['Budget'];
export type Channels = Schemas['Channels'];
export type Comparison = Schemas['Comparison'];
export type Counts = Schemas['Counts'];
export type Graph = Schemas['Graph'];
export type Kernel = Schemas['Kernel'];
export type Latency = Schemas['Latency'];
export type LatencyComparison = Schemas['LatencyComparison'];
export type GraphNode = Schemas['Node'];
export type Histogram = Schemas['Histogram'];
export type ModelFacts = Schemas['ModelFacts'];
export type OpKernels = Schemas['OpKernels'];
export type OpTimings = Schemas['OpTimings'];
export type Operand = Schemas['Operand'];
export type Profile = Schemas['Profile'];
export type Reason = Schemas['Reason'];
export type Rewritten = Schemas['Rewritten'];
export type Row = Schemas['Row'];
export type RowDetails = Schemas['RowDetails'];
export type RowColumns = Schemas['Rows'];
export type RunDocument = Schemas['RunDocument'];
export type RunSummary = Schemas['RunSummary'];
export type Sensitivities = Schemas['Sensitivities'];
export type Suggestion = Schemas['Suggestion'];
export type Suggestions = Schemas['Suggestions'];
export type Speed = Schemas['Speed'];
export type Trial = Schemas['Trial'];
export type Trials = Schemas['Trials'];
export type ServerEvent = Schemas['RunsEvent'] | Schemas['RunEvent'] | Schemas['RemovedEvent'];

/** A number as JSON says it: null where there is none, infinity in words. */
export type Figure = number | 'Infinity' | '-Infinity' | null;
export type Side = 'reference' | 'quantized';
export type Role = Row['role'];
