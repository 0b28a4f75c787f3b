/** An ERROR or ABORT of the server, whatever the client makes of it. */
export class Failure extends Error {
    constructor(uri, args = [], kwargs = {}) {
        super(`${uri} ${JSON.stringify(args)}`);
        Object.assign(this, { uri, args, kwargs });
    }
}
