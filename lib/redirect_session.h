/* What a session is made of. Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_SESSION_H
#define AMBIENT_LIB_REDIRECT_SESSION_H

#include "ambient/redirect.h"

struct nft_socket;
struct nl_sock;

struct redirect_session {
	struct nft_socket *nft;
	struct nl_sock *route;
};

#endif
