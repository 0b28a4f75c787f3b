/** AutobahnJS, with the interface that the scenarios expect of a client. */
import autobahn from 'autobahn';
import nacl from 'tweetnacl';
import WebSocket from 'ws';

import { Failure } from './failure.js';

// AutobahnJS uses the WebSocket that browsers have, and Node since version 22.
globalThis.WebSocket ??= WebSocket;

const serializers = {
    json: () => new autobahn.serializer.JSONSerializer(),
    msgpack: () => new autobahn.serializer.MsgpackSerializer(),
};

/** Run a function while every new WebSocket sends `headers`: browsers do that with cookies. */
function withHeaders(headers, run) {
    const original = globalThis.WebSocket;
    globalThis.WebSocket = class extends WebSocket {
        constructor(url, protocols) {
            super(url, protocols, { headers });
        }
    };
    try {
        return run();
    } finally {
        globalThis.WebSocket = original;
    }
}

class Session {
    constructor(connection, session, welcome, closed, mishaps) {
        Object.assign(this, { connection, session, welcome, closed, mishaps });
        this.id = session.id;
        this.subprotocol = welcome.transport.protocol;
        this.noResult = [null]; // what this client makes of a result without any arguments
    }

    call(uri, args, kwargs, { onProgress, timeout, discloseMe } = {}) {
        const options = {
            ...(onProgress && { receive_progress: true }),
            ...(timeout && { timeout }),
            ...(discloseMe && { disclose_me: true }),
        };
        const called = this.session.call(uri, args, kwargs, options);
        const result = new Promise((resolve, reject) => {
            called.then(
                (value) => resolve(forms(value)),
                (error) => reject(new Failure(error.error, error.args, error.kwargs)),
                (value) => {
                    const { args: reported, kwargs: named } = forms(value);
                    onProgress(reported, named);
                },
            );
        });
        // With any other mode this client takes the server's answer for a violation.
        result.cancel = () => called.cancel({ mode: 'kill' });
        return result;
    }

    /** `handler` returns args and kwargs, or throws a Failure. */
    async register(uri, handler, options) {
        const endpoint = async (args, kwargs, details) => {
            const { procedure, caller, progress } = details;
            try {
                const answer = await handler(args, kwargs, { procedure, caller, progress });
                return new autobahn.Result(answer.args, answer.kwargs);
            } catch (error) {
                throw new autobahn.Error(error.uri, error.args, error.kwargs);
            }
        };
        try {
            const registration = await this.session.register(uri, endpoint, options);
            return () => registration.unregister();
        } catch (error) {
            throw new Failure(error.error, error.args, error.kwargs);
        }
    }

    async publish(topic, args, kwargs, options) {
        try {
            const asked = { ...options, acknowledge: true };
            return (await this.session.publish(topic, args, kwargs, asked)).id;
        } catch (error) {
            throw new Failure(error.error, error.args, error.kwargs);
        }
    }

    async subscribe(topic, handler, match = 'exact') {
        try {
            const subscription = await this.session.subscribe(topic, handler, { match });
            return () => subscription.unsubscribe();
        } catch (error) {
            throw new Failure(error.error, error.args, error.kwargs);
        }
    }

    async leave() {
        this.connection.close();
        const { how, reason } = await this.closed;
        if (this.mishaps.length || how !== 'closed') {
            throw new Error(`the connection was ${how}; ${this.mishaps.join('; ')}`);
        }
        return reason;
    }
}

/** A lone value, and none, are handed out as they are. */
function forms(value) {
    return value instanceof autobahn.Result
        ? { args: value.args, kwargs: value.kwargs }
        : { args: [value], kwargs: {} };
}

/** Answer a challenge as the client's documentation says. */
function answer(method, extra, { ticket, secret, keys }) {
    if (method === 'ticket') {
        return ticket;
    }
    if (method === 'cryptosign') {
        return autobahn.auth_cryptosign.sign_challenge(keys, extra);
    }
    const key = extra.salt
        ? autobahn.auth_cra.derive_key(secret, extra.salt, extra.iterations, extra.keylen)
        : secret;
    return autobahn.auth_cra.sign(key, extra.challenge);
}

export function open(url, serializer, options) {
    const { realm, authid, authmethods, headers, privateKey, ...credentials } = options;
    const mishaps = [];
    if (privateKey) {
        const seed = Uint8Array.from(Buffer.from(privateKey, 'hex'));
        credentials.keys = nacl.sign.keyPair.fromSeed(seed);
    }
    const connection = new autobahn.Connection({
        realm,
        authid,
        authmethods,
        // This client sends null for what it doesn't use.
        authextra: privateKey && {
            pubkey: autobahn.auth_cryptosign.public_key(credentials.keys),
            channel_binding: null,
            challenge: null,
        },
        transports: [{ type: 'websocket', url, serializers: [serializers[serializer]()] }],
        onchallenge: (session, method, extra) => answer(method, extra, credentials),
        on_user_error: (error) => {
            if (!(error instanceof autobahn.Error)) {
                mishaps.push(String(error));
            }
        },
        on_internal_error: (error) => mishaps.push(error.message ?? error.error ?? String(error)),
        retry_if_unreachable: false,
        max_retries: 0,
    });
    const closed = new Promise((resolve) => {
        connection.onclose = (how, { reason }) => {
            resolve({ how, reason });
            return true; // no attempt to connect again
        };
    });
    const opened = new Promise((resolve, reject) => {
        connection.onopen = (session, welcome) =>
            resolve(new Session(connection, session, welcome, closed, mishaps));
        closed.then(({ how, reason }) => reject(new Failure(reason ?? how, mishaps)));
    });
    if (headers) {
        withHeaders(headers, () => connection.open());
    } else {
        connection.open();
    }
    return opened;
}
