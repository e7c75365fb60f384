<?php
class ChatController
{
    public function rooms()
    {
        return response()->json(['attic', 'cellar']);
    }

    public function poll(Request $request, $room)
    {
        $after = (int) $request->input('after', 0);
        $begun = time();
        while (time() - $begun < 4) {
            $rows = DB::table('messages')->where('room', $room)->where('id', '>', $after)->get();
            if (count($rows) > 0) {
                return response()->json(['messages' => $rows]);
            }
            usleep(100000);
        }
        return response()->json(['messages' => []]);
    }

    public function say(Request $request, $room)
    {
        DB::table('messages')->insert(['room' => $room, 'text' => $request->input('text')]);
        return 'said';
    }
}
