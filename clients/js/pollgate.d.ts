/** Options of {@link pollgate}. */
export interface Options {
  /** The token, or a function that fetches one; it is called again once a token is refused. */
  token?: string | (() => string | Promise<string>);
  /** The transports in the order in which they are tried. Default: `['ws', 'sse', 'poll']`. */
  transports?: Array<'ws' | 'sse' | 'poll'>;
  /** Seconds, as in the gate's `stream.heartbeat`. Default: 20. */
  heartbeat?: number;
  /** `false` = this client has a connection of its own. Default: tabs share one. */
  share?: boolean;
  /** As in `fetch`, for a gate on another origin. */
  credentials?: RequestCredentials;
  /** Called with each new state and transport. */
  onstate?: (state: State, transport: Transport) => void;
}

export type State = 'connecting' | 'open' | 'offline' | 'closed';
export type Transport = 'ws' | 'sse' | 'poll' | null;

/** A message, but for its data. */
export interface Meta {
  channel: string;
  /** Unique within the channel. */
  id: string;
  /** Seconds since 1970. */
  stamp: number;
  /** The place just after the message, good for `from`. */
  cursor: string;
  /** Messages may be missing before it. */
  reset: boolean;
}

/** A user who is present. */
export interface User {
  user: string;
  /** As the site describes it. */
  info: any;
  /** Seconds since 1970, for those who were there before. */
  since?: number;
}

export interface Client {
  readonly state: State;
  readonly transport: Transport;
  /** Called with the channel whose messages may be missing. */
  on(event: 'reset', listener: (channel: string) => void): this;
  /** Listens on a channel: from now on, from the oldest message kept, or from a cursor. */
  on<T = any>(channel: string, listener: (data: T, meta: Meta) => void, options?: { from?: 'oldest' | string }): this;
  /** Called with the users on a channel with presence: now, and whenever one comes or goes. */
  presence(channel: string, listener: (users: User[]) => void): this;
  off(channel: string, listener: (...args: any[]) => void): this;
  close(): void;
}

/** A client of the gate at `base`, by default `/comet`. */
export function pollgate(base?: string, options?: Options): Client;
export default pollgate;
