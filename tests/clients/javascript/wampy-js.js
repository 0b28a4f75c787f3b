/** Wampy.js, with the interface that the scenarios expect of a client. */
import nacl from 'tweetnacl';
import { Wampy } from 'wampy';
import { JsonSerializer } from 'wampy/JsonSerializer.js';
import { MsgpackSerializer } from 'wampy/MsgpackSerializer.js';
import * as cryptosign from 'wampy/cryptosign.js';
import * as cra from 'wampy/wampcra.js';
import websocket from 'websocket';

import { Failure } from './failure.js';

const serializers = { json: JsonSerializer, msgpack: MsgpackSerializer };

class Session {
    constructor(client, welcome, socket, received, mishaps) {
        Object.assign(this, { client, welcome, received, mishaps });
        this.id = client.getSessionId();
        this.subprotocol = socket.protocol;
        this.noResult = [];
    }

    call(uri, args, kwargs, { onProgress, timeout, discloseMe } = {}) {
        const options = {
            ...(onProgress && { progress_callback: (report) => onProgress(...forms(report)) }),
            ...(timeout && { timeout }),
            ...(discloseMe && { disclose_me: true }),
        };
        const called = this.client.call(uri, payload(args, kwargs), options);
        const request = this.client.getOpStatus().reqId;
        const result = called.then(
            (value) => {
                const [positional, named] = forms(value);
                return { args: positional, kwargs: named };
            },
            (error) => {
                throw failure(error);
            },
        );
        result.cancel = () => this.client.cancel(request, { mode: 'kill' });
        return result;
    }

    /** Call and go on to send chunks: `send(chunk, isLast)`. */
    stream(uri, onProgress) {
        const { result, sendData } = this.client.progressiveCall(uri, undefined, {
            progress_callback: (report) => onProgress(...forms(report)),
        });
        return {
            send: (chunk, isLast) => sendData({ argsList: [chunk] }, { progress: !isLast }),
            result: result.then(forms, (error) => {
                throw failure(error);
            }),
        };
    }

    /** `handler` returns args and kwargs, or throws a Failure. */
    async register(uri, handler, options) {
        const endpoint = async ({ argsList, argsDict, details }) => {
            const { procedure = uri, caller, receive_progress: progress } = details;
            try {
                const answer = await handler(argsList, argsDict, { procedure, caller, progress });
                return { argsList: answer.args, argsDict: answer.kwargs };
            } catch (error) {
                throw { error: error.uri, argsList: error.args, argsDict: error.kwargs };
            }
        };
        try {
            await this.client.register(uri, endpoint, options);
            return () => this.client.unregister(uri);
        } catch (error) {
            throw failure(error);
        }
    }

    async publish(topic, args, kwargs, options) {
        try {
            const published = await this.client.publish(topic, payload(args, kwargs), options);
            return published.publicationId;
        } catch (error) {
            throw failure(error);
        }
    }

    async subscribe(topic, handler, match) {
        try {
            const { subscriptionId } = await this.client.subscribe(
                topic,
                (event) => handler(...forms(event), event.details),
                match && { match }, // told of the default, this client can't unsubscribe
            );
            return () => this.client.unsubscribe(subscriptionId);
        } catch (error) {
            throw failure(error);
        }
    }

    async leave() {
        await this.client.disconnect();
        if (this.mishaps.length) {
            throw new Error(this.mishaps.join('; '));
        }
        const [kind, , reason] = this.received.last;
        return kind === 6 ? reason : `no GOODBYE, but message ${kind}`;
    }
}

function publicKey(privateKey) {
    const { publicKey } = nacl.sign.keyPair.fromSeed(cryptosign.hex2bytes(privateKey));
    return cryptosign.bytes2hex(publicKey);
}

function payload(args, kwargs) {
    return args || kwargs ? { argsList: args, argsDict: kwargs } : undefined;
}

function forms({ argsList = [], argsDict = {} }) {
    return [argsList, argsDict];
}

function failure(error) {
    return error.errorUri ? new Failure(error.errorUri, error.argsList, error.argsDict) : error;
}

export async function open(url, serializer, options) {
    const { realm, authid, authmethods, headers, ticket, secret, privateKey } = options;
    const received = { last: [] };
    const mishaps = [];
    let socket;
    let closed;
    const hasClosed = new Promise((resolve) => {
        closed = resolve;
    });
    const client = new Wampy(url, {
        realm,
        serializer: new serializers[serializer](),
        autoReconnect: false,
        ws: class extends websocket.w3cwebsocket {
            constructor(...args) {
                super(...args, { maxReceivedFrameSize: 2 ** 24 }); // by default it is 1 MiB
                socket = this;
            }
        },
        additionalHeaders: headers,
        // The reason of a GOODBYE is shown to nobody but the log.
        debug: true,
        logger: ([text, message]) => {
            if (text.startsWith('websocket message received')) {
                received.last = message;
            }
        },
        onError: (error) => mishaps.push(`${error.name} ${error.errorUri ?? error.message}`),
        onClose: () => closed(),
        // This client sends authid and authmethods only together with what answers a challenge.
        ...(authmethods && {
            authid,
            authmethods,
            authMode: 'auto',
            ...(privateKey && { authextra: { pubkey: publicKey(privateKey) } }),
            authPlugins: {
                ticket: () => ticket,
                wampcra: cra.sign(secret ?? ''),
                cryptosign: cryptosign.sign(privateKey ?? '00'.repeat(32)),
            },
        }),
    });
    try {
        const welcome = await client.connect();
        return new Session(client, welcome, socket, received, mishaps);
    } catch (error) {
        await hasClosed;
        throw failure(error);
    }
}
